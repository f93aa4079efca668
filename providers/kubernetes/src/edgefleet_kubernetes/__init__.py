"""Kubernetes as a provider: an OCI registry, Jobs, DaemonSets."""
