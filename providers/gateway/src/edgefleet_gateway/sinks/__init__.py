"""Where a gateway forwards the events that it received: HTTP, MQTT, Kafka."""
