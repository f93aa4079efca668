"""Azure: Blob storage, Azure ML, IoT Edge and IoT Hub behind the four interfaces."""
