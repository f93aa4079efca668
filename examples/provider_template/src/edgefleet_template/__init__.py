"""A provider to start your own from: a fleet on a folder that operators and devices both mount."""
