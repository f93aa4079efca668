"""What the mock of Kubernetes is made of; needs the extra ``mock``."""
