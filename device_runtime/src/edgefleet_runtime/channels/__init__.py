"""Channels: how pointer and access reach a device, and where its reports and events go."""
