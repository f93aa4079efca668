"""The Kubernetes channel; with events by MQTT it needs ``edgefleet-runtime[kubernetes]``."""
