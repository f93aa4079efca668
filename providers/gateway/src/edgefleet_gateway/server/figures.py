"""Figures of a gateway, for Prometheus: what was asked, how long it took, what it stands before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from edgefleet_gateway.sinks.running import SinkFigures

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0)
_SINKS = {
    "waiting": "Events that wait for a sink",
    "waiting_bytes": "Bytes of them",
    "away": "1 while a sink takes nothing",
    "sent": "Events that a sink took",
    "refused": "Events that a sink refused for what they are, set aside",
    "dropped": "Events that had to go for want of room",
    "failures": "Deliveries that failed",
}
_GAUGES = frozenset({"waiting", "waiting_bytes", "away"})


class Figures:
    """What one process counts. Names begin with ``edgefleet_gateway_``.

    Args:
        gauges: what is looked up when somebody asks: by name, what it says and how it is found.
    """

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._registry = CollectorRegistry()
        self.answers = self._counter("answers", "Answers sent", "operation", "status")
        self.refused = self._counter("refused", "Requests refused", "operation", "reason")
        self.sent_bytes = self._counter("sent_bytes", "Bytes of blobs sent")
        self.taken_bytes = self._counter("taken_bytes", "Bytes of files taken")
        self.taken_events = self._counter("taken_events", "Hot events taken")
        self.seconds = Histogram(
            "edgefleet_gateway_answer_seconds",
            "Seconds until an answer, without polls that waited",
            ["operation"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        for name, (about, value) in gauges.items():
            gauge = Gauge(f"edgefleet_gateway_{name}", about, registry=self._registry)
            gauge.set_function(value)

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"edgefleet_gateway_{name}", about, labels, registry=self._registry)

    def watch_sinks(self, figures: Callable[[], Iterable[SinkFigures]]) -> None:
        """Show what sinks of events do, too."""
        self._registry.register(_Sinks(figures))

    def answer(self) -> Response:
        """All of them in the text format."""
        return Response(
            generate_latest(self._registry),
            headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Cache-Control": "no-store"},
        )


class _Sinks(Collector):
    """Figures of sinks, which count for themselves."""

    def __init__(self, figures: Callable[[], Iterable[SinkFigures]]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        found = list(self._figures())
        for name, about in _SINKS.items():
            kind = GaugeMetricFamily if name in _GAUGES else CounterMetricFamily
            family = kind(f"edgefleet_gateway_sink_{name}", about, labels=["sink"])
            for one in found:
                family.add_metric([one.sink], float(getattr(one, name)))
            yield family
