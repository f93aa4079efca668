"""When, what and how fast a device sends what its spool kept."""
