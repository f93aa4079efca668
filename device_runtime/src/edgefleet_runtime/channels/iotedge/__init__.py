"""The IoT Edge channel: the extra ``edgefleet-runtime[iotedge]``."""
