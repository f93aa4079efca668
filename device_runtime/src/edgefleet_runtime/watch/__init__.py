"""What a device makes of what it sees: rules, alarms, windows, drift, samples."""
