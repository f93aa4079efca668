"""The report: what this device says it runs, and the facts about its hardware."""
