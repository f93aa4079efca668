"""The Greengrass channel: the extra ``edgefleet-runtime[greengrass]``."""
