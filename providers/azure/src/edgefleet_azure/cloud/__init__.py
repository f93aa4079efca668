"""What the mock of Azure is made of; needs the extra ``mock``."""
