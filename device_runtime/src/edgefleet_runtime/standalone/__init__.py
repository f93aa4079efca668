"""Serving without a fleet: model files, bundles and Triton model repositories, and nothing else."""
