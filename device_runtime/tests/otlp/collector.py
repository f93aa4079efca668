"""A little collector: takes OTLP over HTTP on loopback and keeps the decoded messages."""

from __future__ import annotations

import gzip
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


class Collector:
    """What came. ``status`` is what callers are told; ``hold`` keeps them waiting until set."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.status = 200
        self.asked = threading.Semaphore(0)
        self.hold = threading.Event()
        self.hold.set()
        self.headers: list[dict[str, str]] = []
        self.traces: list[Any] = []
        self.messages: list[Any] = []

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for message in self.traces
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self, number: int = -1) -> dict[str, Any]:
        """The metrics of one message by name, the last unless told otherwise."""
        return {
            metric.name: metric
            for resource in self.messages[number].resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def take(self, path: str, body: bytes) -> int:
        self.asked.release()
        assert self.hold.wait(30)
        if self.status == 200 and path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(body))
        elif self.status == 200 and path == "/v1/metrics":
            self.messages.append(ExportMetricsServiceRequest.FromString(body))
        elif self.status == 200:
            return 404
        return self.status


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listens until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            collector.headers.append({k.lower(): v for k, v in self.headers.items()})
            status = collector.take(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.hold.set()
        server.shutdown()
        server.server_close()
        thread.join(30)
