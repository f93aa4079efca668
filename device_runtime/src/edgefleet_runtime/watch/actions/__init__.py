"""What a device does by itself when an alarm begins: webhook, broker, file, registered action."""
