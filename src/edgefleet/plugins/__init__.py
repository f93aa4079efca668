"""Plugins: `provider` (what one offers), `hooks`, `discovery` (how both are found), ``entries``.

`checking` holds what they give against what was agreed. pluggy collects and notifies; it never
stands in a call path.
"""
