"""Event: telemetry as CloudEvents 1.0 in the JSON format.

``data`` is one of our documents, chosen by ``type``. The device writes ``source`` for completeness;
a receiver replaces it by the name that the authenticated channel gives (`attributed`).
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec

from edgefleet.errors import DocumentError
from edgefleet.protocol.documents import Document, decode, encode, parse

MAX_BYTES = 1 << 20  # bytes of one encoded event
PREFIX = "dev.edgefleet."
DETACHED_SOURCE = "urn:edgefleet:device"
"""The source that a device writes; receivers never read it."""

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Number = float | None
"""A measured number; None (null on the wire) where it was not finite, which JSON can't say."""


class OutputSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of one output: its first numbers and, for a score vector, the best class.

    Attributes:
        name: the output's name.
        shape: its shape.
        values: its first elements in C order, as many as the policy allows.
        top: index of the largest element along the last axis, a list over the leading elements.
        score: the largest element of each.
    """

    name: str
    shape: tuple[int, ...]
    values: tuple[Number, ...] = ()
    top: tuple[int, ...] = ()
    score: tuple[Number, ...] = ()


class Prediction(Document, frozen=True, kw_only=True):
    """One answered request. ``latency_us`` is the engine's run time in microseconds.

    ``trace`` is the request's ``traceparent``: https://www.w3.org/TR/trace-context/.
    """

    model: str
    model_version: str
    bundle: str
    variant: str
    outputs: tuple[OutputSummary, ...]
    latency_us: float
    request: str | None = None
    trace: str | None = None


class Metric(Document, frozen=True, kw_only=True):
    """A figure at a time; ``unit`` as UCUM or OpenMetrics names it."""

    name: str
    value: Number
    unit: str = ""
    model: str | None = None
    labels: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it


class SketchWindow(Document, frozen=True, kw_only=True):
    """Sketches of one window; ``features`` as `edgefleet.protocol.sketch` writes them."""

    model: str
    start: Timestamp
    end: Timestamp
    features: dict[str, Any]


class Sample(Document, frozen=True, kw_only=True):
    """Captured inputs and outputs: tensor name -> digest of the blob that holds it."""

    model: str
    model_version: str
    reason: str
    inputs: dict[str, str]
    outputs: dict[str, str] = {}  # noqa: RUF012


class Alarm(Document, frozen=True, kw_only=True):
    """Something a person should know at once."""

    rule: str
    message: str
    severity: Literal["info", "warning", "critical"] = "warning"
    model: str | None = None


class HealthEvent(Document, frozen=True, kw_only=True):
    """A change in a device's condition, such as a release rejected or the runtime started."""

    what: str
    message: str
    model: str | None = None


EventData = Prediction | Metric | SketchWindow | Sample | Alarm | HealthEvent

KINDS: dict[str, type[EventData]] = {
    "prediction": Prediction,
    "metric": Metric,
    "sketch": SketchWindow,
    "sample": Sample,
    "alarm": Alarm,
    "health": HealthEvent,
}
HOT = frozenset({"alarm", "health"})
"""Kinds that travel at once over the provider's messaging; the rest goes in segments."""

_NAME_OF = {kind: name for name, kind in KINDS.items()}


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """CloudEvents 1.0 envelope. ``data`` stays encoded until `payload` is called."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    time: Timestamp
    data: msgspec.Raw
    specversion: Literal["1.0"] = msgspec.field(default_factory=lambda: "1.0")
    datacontenttype: str = msgspec.field(default_factory=lambda: "application/json")
    subject: str | None = None

    @property
    def kind(self) -> str:
        """``prediction``, ``metric``, …; the whole type where it is not ours."""
        return self.type.removeprefix(PREFIX)

    @property
    def device(self) -> str:
        """Name of the device, as the receiver attributed it."""
        return self.source.rsplit("/", 1)[-1]

    def payload(self) -> EventData:
        """The decoded data.

        Raises:
            DocumentError: the kind is unknown here, or the data is malformed.
            UnknownFeatureError: the data requires a feature unknown here.
        """
        kind = KINDS.get(self.kind) if self.type.startswith(PREFIX) else None
        if kind is None:
            msg = f"events of type {self.type!r} are unknown here"
            raise DocumentError(msg, cure="read them as plain data with Event.plain()")
        return decode(kind, memoryview(self.data), max_bytes=MAX_BYTES)

    def plain(self) -> dict[str, Any]:
        """The whole event as plain data, whatever its type.

        Raises:
            DocumentError: the data is malformed: reading an event skips over it.
        """
        return parse(dict[str, Any], encode(self), "event")


def new_event(
    data: EventData,
    *,
    time: datetime | None = None,
    subject: str | None = None,
    identity: str | None = None,
) -> Event:
    """An event as a device writes it, with a fresh id unless one is given."""
    return Event(
        id=identity or uuid.uuid4().hex,
        source=DETACHED_SOURCE,
        type=PREFIX + _NAME_OF[type(data)],
        time=time or datetime.now(UTC),
        subject=subject or getattr(data, "model", None) or None,  # CloudEvents: never empty
        data=msgspec.Raw(encode(data)),
    )


def attributed(event: Event, device: str) -> Event:
    """The event with its source set from the authenticated channel."""
    return msgspec.structs.replace(event, source=f"/devices/{device}")


def read_event(data: bytes | memoryview) -> Event:
    """Decode one event.

    Raises:
        DocumentError: malformed or too long.
    """
    if len(data) > MAX_BYTES:
        msg = f"an event of {len(data)} bytes is over the limit of {MAX_BYTES}"
        raise DocumentError(msg)
    event = parse(Event, data, "event")
    try:
        str(event.data, "utf-8")  # decoding has skipped over it, and others take it for text
    except UnicodeDecodeError as error:
        msg = f"malformed event: its data is not UTF-8: {error.reason}"
        raise DocumentError(msg) from error
    return event
