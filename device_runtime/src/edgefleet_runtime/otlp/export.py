"""Sends metrics and traces to a collector from a thread of its own.

Rules kept here:

- An answer pays for one short critical section, and only if its trace is sampled.
- What waits is bounded; what doesn't fit, or a collector doesn't take, is dropped and counted.
- A collector that can't be reached is told once in the log, and once when it can be again.
- The end is bounded: what can't be sent by then is dropped.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace.export import SpanExportResult

from edgefleet_runtime.otlp.convert import Answer, is_sampled, metrics_of, resource_of, span_of
from edgefleet_runtime.serve.prometheus import Family, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray
    from opentelemetry.sdk.trace import ReadableSpan

    from edgefleet_runtime.serve.table import ServedModel

_log = logging.getLogger(__name__)

MAX_WAITING = 2048  # spans; the default of OTEL_BSP_MAX_QUEUE_SIZE
BATCH = 512  # spans in one message; likewise OTEL_BSP_MAX_EXPORT_BATCH_SIZE
SPANS_EVERY_S = 5.0  # likewise OTEL_BSP_SCHEDULE_DELAY
METRICS_EVERY_S = 60.0  # likewise OTEL_METRIC_EXPORT_INTERVAL, which is heeded
LAST_S = 0.5  # of the end, for a call that was broken off to return


class OtlpExport:
    """Metrics and traces of one runtime.

    Args:
        url: the collector's address; None for the one that the environment names.
        instance: tells this runtime from others.
        spans_every_s: between two messages of spans.
        metrics_every_s: between two messages of metrics; None for what the environment says.
        timeout_s: for one message, with its repetitions; None likewise.
    """

    def __init__(
        self,
        url: str | None,
        *,
        instance: str | None = None,
        spans_every_s: float = SPANS_EVERY_S,
        metrics_every_s: float | None = None,
        timeout_s: float | None = None,
    ) -> None:
        base = None if url is None else url.rstrip("/")
        self._spans = OTLPSpanExporter(base and f"{base}/v1/traces", timeout=timeout_s)
        self._metrics = OTLPMetricExporter(base and f"{base}/v1/metrics", timeout=timeout_s)
        self._spans_every_s = spans_every_s
        self._metrics_every_s = metrics_every_s or _interval_s()
        self._resource = resource_of(instance)
        self._started_ns = time.time_ns()
        self._waiting: deque[Answer] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._families: Callable[[], Iterable[Family]] = tuple
        self._dropped_spans = 0
        self._dropped_metrics = 0
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    def start(self, families: Callable[[], Iterable[Family]]) -> None:
        """Begin to send.

        Args:
            families: gives the figures; called in the export's thread.
        """
        # What the exporters log, for every message, is told here once.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._families = families
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Send what there is, and end within ``timeout_s`` seconds; any thread may call it."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(max(timeout_s - LAST_S, 0.0))
        for exporter in (self._spans, self._metrics):
            exporter.shutdown()  # breaks repetitions off
        if self._thread.is_alive():
            self._thread.join(min(timeout_s, LAST_S))

    def observe(
        self,
        served: ServedModel,
        _outputs: Mapping[str, NDArray[Any]],
        run_us: float,
        request: str | None,
        trace: str | None = None,
        /,
    ) -> None:
        """Take an answer whose trace is sampled; a table's observer."""
        if trace is None or not is_sampled(trace):
            return
        answer = Answer(served.name, served.version, run_us, request, trace, time.time_ns())
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                self._dropped_spans += 1
                return
            self._waiting.append(answer)
            crowded = len(self._waiting) >= BATCH
        if crowded:
            self._wake.set()

    def families(self) -> tuple[Family, ...]:
        """What was dropped, for whoever scrapes."""
        with self._lock:
            samples = (
                Sample(self._dropped_spans, {"signal": "traces"}),
                Sample(self._dropped_metrics, {"signal": "metrics"}),
            )
        about = "Spans and messages of metrics that no collector took"
        return (Family("edgefleet_otlp_dropped_total", "counter", about, samples),)

    # ------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        due = time.monotonic() + self._metrics_every_s
        while not self._stopping.is_set():
            self._wake.wait(min(self._spans_every_s, max(due - time.monotonic(), 0.0)))
            self._wake.clear()
            self._send_spans()
            if time.monotonic() >= due:
                self._send_metrics()
                due = time.monotonic() + self._metrics_every_s
        self._send_spans()
        self._send_metrics()

    def _send_spans(self) -> None:
        while batch := self._take():
            spans = [span_of(answer, self._resource) for answer in batch]
            if not self._sent(partial(self._export, spans)):
                with self._lock:
                    self._dropped_spans += len(batch)
                return  # what came meanwhile waits for the next turn

    def _export(self, spans: list[ReadableSpan]) -> bool:
        return self._spans.export(spans) is SpanExportResult.SUCCESS

    def _send_metrics(self) -> None:
        def send() -> bool:
            now_ns = time.time_ns()
            data = metrics_of(
                self._families(), self._resource, started_ns=self._started_ns, now_ns=now_ns
            )
            return self._metrics.export(data) is MetricExportResult.SUCCESS

        if not self._sent(send):
            with self._lock:
                self._dropped_metrics += 1

    def _sent(self, send: Callable[[], bool]) -> bool:
        try:
            sent = send()
        except Exception as error:  # noqa: BLE001 - telemetry is the least of a device's duties
            _log.debug("OTLP export", exc_info=error)
            sent = False
        if sent == self._failing:
            self._failing = not sent
            if sent:
                _log.info("the collector takes metrics and traces again")
            else:
                _log.warning("the collector takes no metrics or traces: they are dropped, counted")
        return sent

    def _take(self) -> list[Answer]:
        with self._lock:
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]


def _interval_s() -> float:
    """OTEL_METRIC_EXPORT_INTERVAL, which is in milliseconds."""
    try:
        interval_s = float(os.environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")) / 1000
    except ValueError:
        return METRICS_EVERY_S
    return interval_s if interval_s > 0 else METRICS_EVERY_S
