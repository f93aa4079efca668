"""The device runtime: fetches, verifies, self-tests and serves models, and reports what it runs."""

__version__ = "0.1.0"
