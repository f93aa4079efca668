"""Models and steps before and after them, served under one name."""
