"""Our figures and answers as OpenTelemetry has them. Pure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from edgefleet_runtime import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgefleet_runtime.serve.prometheus import Family

SCOPE = InstrumentationScope("edgefleet_runtime", __version__)


class Answer(NamedTuple):
    """An answered request whose trace is sampled.

    Attributes:
        model: the model's name.
        version: its version.
        run_us: how long it ran, in microseconds.
        request: the request's id.
        trace: its ``traceparent``, as `edgefleet_runtime.serve.trace.trace_of` gives it.
        ended_ns: when it was answered, in nanoseconds since 1970.
    """

    model: str
    version: str
    run_us: float
    request: str | None
    trace: str
    ended_ns: int


def is_sampled(trace: str) -> bool:
    """Whether a ``traceparent`` asks for spans: the lowest bit of its flags."""
    return bool(int(trace[-2:], 16) & TraceFlags.SAMPLED)


def resource_of(instance: str | None) -> Resource:
    """What all of it comes from; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have precedence."""
    own = {"service.name": "edgefleet-runtime", "service.version": __version__}
    if instance is not None:
        own["service.instance.id"] = instance
    return Resource(own).merge(OTELResourceDetector().detect())


def metrics_of(
    families: Iterable[Family], resource: Resource, *, started_ns: int, now_ns: int
) -> MetricsData:
    """The figures that ``/metrics`` tells, under the same names.

    Args:
        families: the figures.
        resource: they come from.
        started_ns: when counting began, in nanoseconds since 1970.
        now_ns: when they were read.
    """
    metrics = [
        Metric(
            name=family.name,
            description=family.about,
            unit="",
            data=_data(family, started_ns, now_ns),
        )
        for family in families
        if family.samples
    ]
    scope = ScopeMetrics(scope=SCOPE, metrics=metrics, schema_url="")
    return MetricsData([ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def span_of(answer: Answer, resource: Resource) -> ReadableSpan:
    """A span for the model's run, a child of the span that the request names.

    It ends when the request was answered, and begins as long before as the run took. How long the
    request had queued before is not in it: nobody tells.
    """
    _, trace, parent, flags = answer.trace.split("-")
    trace_id, traced = int(trace, 16), TraceFlags(int(flags, 16))
    attributes: dict[str, str | float] = {
        "edgefleet.model.name": answer.model,
        "edgefleet.model.version": answer.version,
        "edgefleet.run_us": answer.run_us,
    }
    if answer.request is not None:
        attributes["edgefleet.request.id"] = answer.request
    return ReadableSpan(
        f"infer {answer.model}",
        context=SpanContext(trace_id, _span_id(), is_remote=False, trace_flags=traced),
        parent=SpanContext(trace_id, int(parent, 16), is_remote=True, trace_flags=traced),
        resource=resource,
        attributes=attributes,
        kind=SpanKind.SERVER,
        start_time=answer.ended_ns - round(answer.run_us * 1000),
        end_time=answer.ended_ns,
        instrumentation_scope=SCOPE,
    )


def _data(family: Family, started_ns: int, now_ns: int) -> Sum | Gauge:
    points = [
        NumberDataPoint(
            attributes=dict(sample.labels),
            start_time_unix_nano=started_ns,
            time_unix_nano=now_ns,
            value=sample.value,
        )
        for sample in family.samples
    ]
    if family.kind == "gauge":
        return Gauge(points)
    return Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)


def _span_id() -> int:
    return int.from_bytes(os.urandom(8)) or 1  # W3C Trace Context, 3.2.2.4: never all zeros
