"""Releases to devices without a network, and what those recorded back: by a stick."""
