"""Serving: the table of loaded models and the Open Inference Protocol v2 in front of it."""
