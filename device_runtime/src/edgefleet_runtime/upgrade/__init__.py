"""The runtime brings itself another version, beside the one that runs."""
