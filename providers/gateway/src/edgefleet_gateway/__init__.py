"""Plain Linux fleets: devices that know no cloud pull from a small HTTPS service."""
