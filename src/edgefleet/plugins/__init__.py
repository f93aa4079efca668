"""Plugins: `provider` (what one offers), `hooks`, `discovery` (how both are found), ``entries``.

pluggy collects and notifies; it never stands in a call path.
"""
