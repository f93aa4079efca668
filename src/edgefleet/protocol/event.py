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
from edgefleet.protocol.drift import Drift, Verdict

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


class Reading(Document, frozen=True, kw_only=True):
    """Numbers that a sensor or an application gave at a time.

    Attributes:
        stream: what they belong to, such as ``reefer``.
        key: which of its kind, such as the container's number; windows and alarms go by it.
        values: by name.
    """

    stream: str
    values: Annotated[dict[str, Number], msgspec.Meta(max_length=64)]
    key: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Aggregate(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a window tells of one value. None where nothing finite was seen.

    Attributes:
        count: numbers seen.
        missing: readings in which it was null or absent.
        mean: of the numbers.
        least: the smallest.
        most: the largest.
        quantiles: value by rank, as asked for.
        histogram: how many lay below the first edge, between each two, and from the last one on.
    """

    count: int
    missing: int = 0
    mean: Number = None
    least: Number = None
    most: Number = None
    quantiles: dict[str, Number] = {}
    histogram: tuple[int, ...] = ()


class Window(Document, frozen=True, kw_only=True):
    """Readings or predictions of a span, reduced by the rule of a policy.

    Attributes:
        rule: its name.
        key: as of the readings.
        start: first moment of the span.
        end: first moment after it; what came late is in a window of its own.
        count: how many were reduced.
        values: by name.
        stream: whose readings, or else
        model: whose predictions.
    """

    rule: str
    start: Timestamp
    end: Timestamp
    count: int
    values: dict[str, Aggregate]
    key: str = ""
    stream: str | None = None
    model: str | None = None


class SketchWindow(Document, frozen=True, kw_only=True):
    """Sketches of what a model saw and answered in one window.

    Attributes:
        model: its name.
        start: first moment of the window.
        end: first moment after it.
        features: as `edgefleet.protocol.sketch` writes them: inputs as in the bundle's reference,
            ``score`` and ``top`` of each output that holds scores as ``OUTPUT:score`` and
            ``OUTPUT:top``.
        model_version: the registry's version.
        bundle: its digest.
        requests: how many were looked at.
        drift: each feature held against the bundle's reference, on the device.
        verdict: that of the worst.
    """

    model: str
    start: Timestamp
    end: Timestamp
    features: dict[str, Any]
    model_version: str = ""
    bundle: str = ""
    requests: int = 0
    drift: dict[str, Drift] = {}  # noqa: RUF012 - msgspec copies it
    verdict: Verdict = "unknown"


class Sample(Document, frozen=True, kw_only=True):
    """Captured inputs and outputs: tensor name -> digest of the blob that holds it, as ``.npy``.

    Attributes:
        model: its name.
        model_version: the registry's version.
        reason: the rule, or who ordered it.
        inputs: what the policy lets be kept.
        outputs: likewise by name.
        bundle: digest of the model's bundle.
        answers: what a prediction event would tell of the outputs.
        redacted: hooks that changed an input before it was stored, by its name.
    """

    model: str
    model_version: str
    reason: str
    inputs: dict[str, str]
    outputs: dict[str, str] = {}  # noqa: RUF012
    bundle: str = ""
    answers: tuple[OutputSummary, ...] = ()
    redacted: dict[str, tuple[str, ...]] = {}  # noqa: RUF012


class Alarm(Document, frozen=True, kw_only=True):
    """Something a person should know at once.

    Attributes:
        rule: what raised it.
        message: what people read.
        severity: as they should take it.
        model: the model concerned.
        stream: or the stream,
        key: and which of its kind.
        ended: the alarm is over; one that began has the same rule, model, stream and key.
        values: the numbers that decided.
    """

    rule: str
    message: str
    severity: Literal["info", "warning", "critical"] = "warning"
    model: str | None = None
    stream: str | None = None
    key: str = ""
    ended: bool = False
    values: dict[str, Number] = {}  # noqa: RUF012


class Tally(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many events of one kind there were, and how many of them had to go.

    Attributes:
        kind: of event.
        model: concerned, or the stream; empty where none is.
        top: class of the first output that holds scores; None where there is none.
        band: tenths of its score: 7 is 0.7 to below 0.8, 9 holds 1.0; None likewise.
        seen: all of them.
        dropped: those that no segment will hold.
    """

    kind: str
    model: str = ""
    top: int | None = None
    band: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    seen: Annotated[int, msgspec.Meta(ge=0)]
    dropped: Annotated[int, msgspec.Meta(ge=0)] = 0


class Account(Document, frozen=True, kw_only=True):
    """What a device kept and what it had to drop, of the events of one day by its clock.

    Counts only grow: of several with one spool and day, the one with the highest ``number`` holds.

    Attributes:
        spool: which one; another begins where a device's disk was lost.
        day: as ``2026-11-21``.
        number: of this account of the day.
        tallies: by kind, model, class and score.
    """

    spool: str
    day: Annotated[str, msgspec.Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]
    number: Annotated[int, msgspec.Meta(ge=1)]
    tallies: tuple[Tally, ...]


class HealthEvent(Document, frozen=True, kw_only=True):
    """A change in a device's condition, such as a release rejected or the runtime started."""

    what: str
    message: str
    model: str | None = None


EventData = (
    Prediction | Metric | Reading | Window | SketchWindow | Sample | Alarm | HealthEvent | Account
)

KINDS: dict[str, type[EventData]] = {
    "prediction": Prediction,
    "metric": Metric,
    "reading": Reading,
    "window": Window,
    "sketch": SketchWindow,
    "sample": Sample,
    "alarm": Alarm,
    "health": HealthEvent,
    "account": Account,
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
