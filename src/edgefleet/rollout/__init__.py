"""Deciding without IO: group records, plans, judgement of devices, explanations."""
