"""Engines open and run model files; entry points in ``edgefleet_runtime.engines`` name them."""
