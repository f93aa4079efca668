"""Telemetry policy: what a release's devices record, look for, keep and send. Data, no code.

Conditions are expressions of CEL (https://cel.dev), a language without loops, state or IO. What a
condition may name depends on what it is asked about:

- a prediction: ``model``, ``version``, ``variant``, ``latency_us``, ``score`` and ``top`` (the best
  class of the first output that holds scores, and how sure the model is), ``scores``, ``values``
  (first numbers of the first output), ``disagrees`` (a shadow model says otherwise), ``drifted``
  (names of features that have moved);
- a reading: ``stream``, ``key``, and each of its values by name below ``values``;
- a span of time (`AlarmRule.over_s`): ``count``, and ``mean``, ``least``, ``most``, ``last``, each
  by the name of a value.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

from edgefleet.protocol.drift import Limits
from edgefleet.protocol.names import ModelName

Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0.0)]
RuleName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._\-]{0,62}\Z")]
StreamName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._\-]{0,62}\Z")]
Expression = Annotated[str, msgspec.Meta(max_length=1024)]
Clock = Annotated[str, msgspec.Meta(pattern=r"\A([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
InputPattern = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9._\-*]{1,128}/.{1,256}\Z")]
MAX_RULES = 64  # of each kind in a policy


class Filter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which predictions or readings become events. Every filter that applies must let one pass.

    Attributes:
        name: for people and figures.
        model: looks at this model's predictions; None with ``stream`` None: at every prediction.
        stream: looks at this stream's readings instead.
        when: passes only what this holds for; empty passes everything.
        fraction: share of those that pass, taken evenly by counting.
    """

    name: RuleName
    model: ModelName | None = None
    stream: StreamName | None = None
    when: Expression = ""
    fraction: Fraction = 1.0


class WindowRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Reduces readings, or numbers of predictions, to one ``window`` event a span and key.

    Attributes:
        name: the window's name in its events.
        stream: whose readings.
        model: or whose predictions (``score``, ``latency_us`` and ``values[i]`` are its numbers).
        when: takes only what this holds for; empty takes everything.
        size_s: length of a window in seconds; windows start at its multiples since 1970.
        values: names of the values to reduce; empty takes all, up to 64.
        quantiles: ranks to give, 0 to 1.
        edges: edges of a histogram, ascending; empty for none.
        keep: keep the single events, too.
    """

    name: RuleName
    stream: StreamName | None = None
    model: ModelName | None = None
    when: Expression = ""
    size_s: PositiveFloat = 60.0
    values: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)] = ()
    quantiles: Annotated[tuple[Fraction, ...], msgspec.Meta(max_length=16)] = ()
    edges: Annotated[tuple[float, ...], msgspec.Meta(max_length=64)] = ()
    keep: bool = False


class Action(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a device does by itself when an alarm begins, network or not.

    Attributes:
        kind: ``webhook`` posts the alarm's event to an address on the local network; ``mqtt``
            publishes it to a broker there; ``file`` appends it to a file below the folder that the
            device allows; ``run`` calls an action that is registered on the device by name.
        target: address, ``mqtt://HOST:PORT/TOPIC``, file name, or name of the action.
    """

    kind: Literal["webhook", "mqtt", "file", "run"]
    target: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class AlarmRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a device raises an alarm, and what it does then.

    Attributes:
        name: the alarm's rule in its events.
        model: looks at this model's predictions.
        stream: or at this stream's readings; every key has a state of its own.
        when: the condition.
        needs: it must hold for so many …
        within: … of the last so many, before the alarm begins.
        over_s: look at what came in this many seconds as a whole, instead of at each one.
        clear: the alarm ends when this holds; empty: when ``when`` doesn't hold any more.
        clear_after: so many times in a row.
        every_s: the alarm of this rule and key begins at most once in so many seconds.
        severity: as people should take it.
        message: what people read; empty for one made of the rule.
        actions: what the device does at once.
    """

    name: RuleName
    model: ModelName | None = None
    stream: StreamName | None = None
    when: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
    needs: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    within: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    over_s: PositiveFloat | None = None
    clear: Expression = ""
    clear_after: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    every_s: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    severity: Literal["info", "warning", "critical"] = "warning"
    message: Annotated[str, msgspec.Meta(max_length=512)] = ""
    actions: Annotated[tuple[Action, ...], msgspec.Meta(max_length=8)] = ()


class CaptureRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which requests are kept as samples.

    Attributes:
        name: the samples' reason.
        model: of this model; None: of every one.
        when: only where this holds, such as ``score < 0.6``, ``disagrees`` or
            ``size(drifted) > 0``; empty: always.
        every: each so-many-th of those.
        alarm: around the beginning of the alarms of this rule instead.
        before: so many requests before it …
        after: … and so many after it.
        per_hour: at most so many samples an hour.
        inputs: samples hold what the model was given, too. The policy's ``inputs`` must name it.
    """

    name: RuleName
    model: ModelName | None = None
    when: Expression = ""
    every: PositiveInt = 1
    alarm: RuleName | None = None
    before: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    after: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    per_hour: PositiveInt = 60
    inputs: bool = False


class DriftPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sketches of what models see and answer, and when that has moved.

    Attributes:
        window_s: length of a window in seconds: sketches of each are kept and sent.
        fraction: share of requests that are looked at, taken evenly.
        limits: from where on a distance counts.
    """

    window_s: PositiveFloat = 3600.0
    fraction: Fraction = 1.0
    limits: Limits = Limits()


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A time of day in UTC; one that ends before it starts goes over midnight."""

    start: Clock
    end: Clock


class SyncPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When and how fast a device sends what it kept. Alarms and health events go at any time.

    Attributes:
        max_bytes_per_s: of segments and samples together; None for what the link gives.
        spans: only at these times of day; empty: at any.
        metered: what goes over a link that the device says is metered: everything, samples and
            sketches left out (``lean``), or only alarms and health events (``alarms``).
    """

    max_bytes_per_s: PositiveInt | None = None
    spans: Annotated[tuple[Span, ...], msgspec.Meta(max_length=16)] = ()
    metered: Literal["all", "lean", "alarms"] = "alarms"


class WorthPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a prediction is worth when there is no room for all: the least worth goes first.

    Attributes:
        hard_below: a prediction with a lower score is hard, and kept before ordinary ones.
        rare_below: a class with a smaller share of what was seen is rare, likewise.
    """

    hard_below: Fraction = 0.6
    rare_below: Fraction = 0.01


class TelemetryPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What devices record.

    Attributes:
        prediction_fraction: share of predictions recorded as events, 0 to 1.
        output_values: most numbers of each output kept in a prediction event.
        segment_max_bytes: a segment is closed when it holds this many bytes before compression.
        segment_max_age_s: and when its first event is this old, in seconds.
        heartbeat_s: a report is sent on change and once in this many seconds.
        filters: which predictions and readings become events.
        windows: what is reduced to a figure a span.
        alarms: what people and machines must know at once.
        captures: which requests are kept as samples.
        drift: None to make no sketches.
        sync: when and how fast events are sent.
        worth: what is kept where there is no room for all.
        inputs: what of a model's inputs may be kept and leave the device, ``MODEL/INPUT`` with
            ``*`` for any; they may show people. Everything else stays in memory, however it is
            asked for. What an application hands over itself is its own to decide.
        redact: hooks by the same patterns, run before anything is stored, in order.
    """

    prediction_fraction: Fraction = 1.0
    output_values: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 16
    segment_max_bytes: PositiveInt = 4 << 20
    segment_max_age_s: PositiveFloat = 60.0
    heartbeat_s: PositiveFloat = 86_400.0
    filters: Annotated[tuple[Filter, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    windows: Annotated[tuple[WindowRule, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    alarms: Annotated[tuple[AlarmRule, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    captures: Annotated[tuple[CaptureRule, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    drift: DriftPolicy | None = None
    sync: SyncPolicy = SyncPolicy()
    worth: WorthPolicy = WorthPolicy()
    inputs: Annotated[tuple[InputPattern, ...], msgspec.Meta(max_length=MAX_RULES)] = ()
    redact: Annotated[
        dict[InputPattern, Annotated[tuple[str, ...], msgspec.Meta(max_length=8)]],
        msgspec.Meta(max_length=MAX_RULES),
    ] = {}

    def may_keep(self, model: str, name: str) -> bool:
        """Whether that input of that model may be stored and leave the device."""
        return any(fnmatchcase(f"{model}/{name}", pattern) for pattern in self.inputs)
