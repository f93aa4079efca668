"""The spool: telemetry that must survive until the channel has taken it."""
