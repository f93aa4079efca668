"""Machines of the mock: what would be plain Linux devices."""
