"""Declared rules of a telemetry policy, over single predictions and readings."""
