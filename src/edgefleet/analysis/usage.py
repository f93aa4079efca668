"""What a fleet makes of its provider's services in a month: measured from events, or estimated.

Sizes are kept, because meters round each thing by itself. An estimate makes events as devices do
and compresses them as devices do; what it can't know is said in its assumptions.
"""

from __future__ import annotations

import io
import math
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from edgefleet.analysis.bill import MONTH_S, Usage
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import (
    HOT,
    Aggregate,
    Alarm,
    Event,
    OutputSummary,
    Prediction,
    Window,
    new_event,
)
from edgefleet.protocol.segment import write_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from edgefleet.interfaces.telemetry import Telemetry
    from edgefleet.protocol.policy import TelemetryPolicy
    from edgefleet.protocol.report import Report

DAY_S = 86_400.0
REPORT_BYTES = 2_000  # where no device has sent a report yet
SKETCH_BYTES = 6_800  # of a numeric feature: 5 kB at most, in base64
MEASURED = timedelta(days=30)  # where nobody says from when on
_STEP = 64  # bytes that sizes are rounded up to: few sizes, and no meter's unit is missed
_MADE = 400  # events that an estimate compresses together
_CLASSES = 10


class Habits:
    """What operators do with a fleet, which no event tells.

    Args:
        keep_days: recordings are deleted after so many days.
        reads: how often each recording is read.
        status_per_day: how often the state of each device is asked for in a day.
        releases_per_month: how often each device gets a new model.
        model_bytes: of the variant that a device fetches.
    """

    def __init__(
        self,
        *,
        keep_days: float = 365.0,
        reads: float = 1.0,
        status_per_day: float = 24.0,
        releases_per_month: float = 1.0,
        model_bytes: int = 10_000_000,
    ) -> None:
        self.keep_days, self.reads, self.status_per_day = keep_days, reads, status_per_day
        self.releases_per_month, self.model_bytes = releases_per_month, model_bytes
        for name, value in vars(self).items():
            if not (value >= 0 and math.isfinite(value)):
                raise InvalidInputError(f"{name} is {value}", cure="give a number from 0 on")

    def told(self) -> tuple[str, ...]:
        """The assumptions, in words."""
        new = f"each device gets {self.releases_per_month:g} new models a month"
        return (
            f"recordings are kept for {self.keep_days:g} days and read {self.reads:g} times",
            f"the state of each device is asked for {self.status_per_day:g} times a day",
            f"{new}, of {self.model_bytes:,} bytes",
            "devices are connected all the time",
        )


def measured(
    telemetry: Telemetry,
    *,
    since: datetime | None,
    until: datetime | None,
    now: datetime,
    reports: Iterable[Report | None],
    heartbeat_s: float,
    habits: Habits,
) -> Usage:
    """What the events of a span come to in a month.

    Args:
        telemetry: where the events are.
        since: of the events; None for the first of the `MEASURED` span before ``until``.
        until: likewise; None for the last there is. What a clock that is wrong puts into the
            future is no part of the span.
        now: the time.
        reports: of each device of the fleet, None for one that has sent none.
        heartbeat_s: between two reports of a device.
        habits: of the operators.

    Raises:
        InvalidInputError: there are no events, or all are of one moment.
    """
    latest = now if until is None else until
    query = telemetry.query(since=latest - MEASURED if since is None else since, until=latest)
    hot: Counter[int] = Counter()
    heard: set[str] = set()
    first = last = None
    for event in query:
        heard.add(event.device)
        first = event.time if first is None else min(first, event.time)
        last = event.time if last is None else max(last, event.time)
        if event.kind in HOT:
            hot[_rounded(len(encode(event)))] += 1
    begin, end = since or first, until or last
    span_s = 0.0 if begin is None or end is None else (end - begin).total_seconds()
    if first is None or span_s <= 0:
        if since is None:
            msg = f"there are no events of a span of time to measure in {MEASURED.days} days"
            cure = "say from when on, with since, or give a number of devices to estimate for"
        else:
            msg = "there are no events of a span of time to measure"
            cure = "measure from earlier on, or give a number of devices to estimate for"
        raise InvalidInputError(msg, cure=cure)
    listed = list(reports)
    sizes = [len(encode(report)) for report in listed if report is not None]
    scale = MONTH_S / span_s
    read = {path: size for path, size in query.segments.items() if path in query.held}
    segments = len(read) * scale
    size = sum(read.values()) / len(read) if read else 0.0
    return _usage(
        devices=max(len(listed), len(heard)),
        hot={bytes_: count * scale for bytes_, count in hot.items()},
        segments=segments,
        segment_bytes=size,
        report_bytes=round(sum(sizes) / len(sizes)) if sizes else REPORT_BYTES,
        heartbeat_s=heartbeat_s,
        habits=habits,
        assumptions=(
            f"measured over {span_s / DAY_S:.3g} days, scaled to {MONTH_S / DAY_S:.4g}",
            "each alarm and health event is a message of its own",
            *([] if sizes else [f"a report has {REPORT_BYTES:,} bytes"]),
            *_aside(query.unreadable),
        ),
    )


def _aside(unreadable: Mapping[str, str]) -> Iterator[str]:
    if unreadable:
        yield (
            f"events of {len(unreadable)} segments that couldn't be read are missing: "
            f"{', '.join(islice(unreadable, 5))}{', …' if len(unreadable) > 5 else ''}"
        )


def estimated(
    policy: TelemetryPolicy,
    *,
    devices: int,
    predictions_per_s: float,
    alarms_per_day: float,
    features: int,
    habits: Habits,
) -> Usage:
    """What a policy comes to in a month, before anything is deployed.

    Args:
        policy: what devices record.
        devices: how many there are.
        predictions_per_s: of each.
        alarms_per_day: likewise, health events included.
        features: numeric ones, sketched where the policy says so.
        habits: of the operators.

    Raises:
        InvalidInputError: a number is negative, or there are no devices.
    """
    for name, value in (
        ("devices", devices - 1),
        ("predictions_per_s", predictions_per_s),
        ("alarms_per_day", alarms_per_day),
        ("features", features),
    ):
        if not (value >= 0 and math.isfinite(value)):
            raise InvalidInputError(f"{name} is too small", cure="give a number of devices from 1")
    told = []
    share = policy.prediction_fraction
    for one in policy.filters:
        if one.stream is None:
            share *= one.fraction
            if one.when:
                told.append(f"the condition of filter {one.name} holds for every prediction")
    windows = [rule for rule in policy.windows if rule.model is not None or rule.stream is None]
    if any(not rule.keep and not rule.when for rule in windows):
        share = 0.0
    make_prediction = partial(_prediction, values=policy.output_values)
    parts: list[tuple[float, Callable[[int], Event]]]
    parts = [(predictions_per_s * share * MONTH_S, make_prediction)]
    parts += [(MONTH_S / rule.size_s, _window) for rule in windows]
    events = sum(count for count, _ in parts)
    size = sum(count * _compressed(make) for count, make in parts)
    raw = sum(count * len(encode(make(0))) for count, make in parts)
    sketched = 0.0 if policy.drift is None else MONTH_S / policy.drift.window_s
    size += sketched * features * SKETCH_BYTES
    raw += sketched * features * SKETCH_BYTES
    events += sketched
    by_age, by_size = MONTH_S / policy.segment_max_age_s, raw / policy.segment_max_bytes
    segments = min(events, by_age + by_size)
    if any(rule.stream is not None for rule in policy.windows) or policy.captures:
        told.append("readings and samples are not in the estimate: measure them")
    alarm = _rounded(len(encode(new_event(Alarm(rule="rule", message="m" * 80, model="model")))))
    return _usage(
        devices=devices,
        hot={alarm: devices * alarms_per_day * MONTH_S / DAY_S},
        segments=segments * devices,
        segment_bytes=size / segments if segments else 0.0,
        report_bytes=REPORT_BYTES,
        heartbeat_s=policy.heartbeat_s,
        habits=habits,
        assumptions=(
            f"estimated for {devices:,} devices, each with {alarms_per_day:g} alarms a day",
            f"and {predictions_per_s:g} predictions a second of one output with {_CLASSES} scores",
            *([f"{features} features are sketched, of 5 kB each"] if policy.drift else []),
            f"a report has {REPORT_BYTES:,} bytes",
            *told,
        ),
    )


def _usage(
    *,
    devices: int,
    hot: dict[int, float],
    segments: float,
    segment_bytes: float,
    report_bytes: int,
    heartbeat_s: float,
    habits: Habits,
    assumptions: tuple[str, ...],
) -> Usage:
    days = MONTH_S / DAY_S
    downloads = devices * habits.releases_per_month
    flows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    flows["device"] = [(0.0, devices)]
    flows["connected"] = [(0.0, devices * MONTH_S / 60)]
    flows["hot"] = sorted(hot.items())
    flows["report"] = [(report_bytes, devices * MONTH_S / heartbeat_s)]
    flows["query"] = [(report_bytes, devices * habits.status_per_day * days)]
    flows["put"] = [(segment_bytes, segments)]
    flows["get"] = [(habits.model_bytes, downloads), (segment_bytes, segments * habits.reads)]
    flows["out"] = flows["get"]
    flows["stored"] = [(segments * segment_bytes * habits.keep_days / days, 1.0)]
    return Usage(
        devices=devices,
        flows={name: tuple(part for part in parts if part[1]) for name, parts in flows.items()},
        assumptions=(*assumptions, *habits.told()),
    )


def _rounded(size: int) -> int:
    return -(-size // _STEP) * _STEP


def _compressed(make: Callable[[int], Event]) -> float:
    """Bytes of an event in a segment."""
    buffer = io.BytesIO()
    write_segment(map(make, range(_MADE)), buffer)
    return buffer.tell() / _MADE


def _prediction(number: int, values: int) -> Event:
    draw = random.Random(number)  # noqa: S311 - content, not a secret
    scores = tuple(round(draw.random(), 6) for _ in range(_CLASSES))
    best = max(range(_CLASSES), key=scores.__getitem__)
    data = Prediction(
        model="model",
        model_version="1",
        bundle="sha256:" + "0" * 64,
        variant="int8",
        latency_us=round(1000 + 500 * draw.random(), 1),
        outputs=(
            OutputSummary(
                name="scores",
                shape=(1, _CLASSES),
                values=scores[:values],
                top=(best,),
                score=(scores[best],),
            ),
        ),
    )
    return new_event(data, time=_moment(number), identity=f"{draw.getrandbits(128):032x}")


def _window(number: int) -> Event:
    draw = random.Random(number)  # noqa: S311 - as above
    start, end = _moment(number * 60), _moment(number * 60 + 60)
    mean, least, most = sorted(round(draw.random(), 6) for _ in range(3))
    values = {"score": Aggregate(count=60, mean=mean, least=least, most=most)}
    data = Window(rule="rule", start=start, end=end, count=60, values=values, model="model")
    return new_event(data, time=end, identity=f"{draw.getrandbits(128):032x}")


def _moment(second: int) -> datetime:
    return datetime.fromtimestamp(1_767_225_600 + second, UTC)
