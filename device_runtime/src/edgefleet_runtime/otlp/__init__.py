"""Metrics and traces to an OpenTelemetry collector over OTLP/HTTP; needs the extra ``[otlp]``."""
