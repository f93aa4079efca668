"""The embedded provider: a fleet in a directory, its devices as child processes."""
