"""What the vessel's data looks like to the device runtime: events, readings, requests, reference.

An event of each container and minute is made by a template, because there are five million of them:
it says what `edgefleet.protocol.event.new_event` would have written, number by number.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from vessel_cargo import CONTAINERS, DEPARTURE, FEATURES, MINUTES

from edgefleet.protocol.event import (
    DETACHED_SOURCE,
    PREFIX,
    Event,
    OutputSummary,
    Prediction,
    Reading,
    new_event,
)
from edgefleet.protocol.sketch import sketch_classes, sketch_numbers
from edgefleet_runtime.watch.seen import Heard, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel_cargo import Array, Day

    from edgefleet.protocol.sketch import ClassSketch, NumberSketch

MODEL = STREAM = "reefer"
VERSION, VARIANT = "3", "x86-cpu"
BUNDLE = "sha256:" + "8b" * 32
INPUT = "minute"
SKETCHED = tuple(f"{INPUT}[{index}]" for index in range(len(FEATURES)))
"""The features' names in sketches."""
DEPARTURE_DAY = datetime.fromtimestamp(DEPARTURE, UTC).date()
KEYS = tuple(f"reefer-{number:02d}" for number in range(CONTAINERS))

_DATA = (
    f'{{"model":"{MODEL}","model_version":"{VERSION}","bundle":"{BUNDLE}","variant":"{VARIANT}",'
    '"outputs":[{"name":"state","shape":[1,4],"values":[%r,%r,%r,%r],"top":[%d],"score":[%r]},'
    f'{{"name":"{INPUT}","shape":[1,4,1],"values":[%s,%s,%s,%s]}}],'
    '"latency_us":%r,"version":1,"requires":[]}'
)


def moment_of(day: int, minute: int) -> float:
    """A minute of the voyage, in seconds since 1970."""
    return DEPARTURE + 60.0 * (day * MINUTES + minute)


def identity_of(day: int, minute: int, container: int) -> str:
    """The id of the event of a container and minute; `number_of` reads it."""
    return f"{(day * MINUTES + minute) * CONTAINERS + container:032x}"


def number_of(identity: str) -> int:
    """Which prediction of the voyage that is: 0 for the first container's first minute."""
    return int(identity, 16)


def predictions_of(day: Day, minutes: range) -> list[Event]:
    """Events of all containers' minutes: what the model answered, and what it saw."""
    found: list[Event] = []
    for minute in minutes:
        when = datetime.fromtimestamp(moment_of(day.number, minute), UTC)
        scores = day.scores[minute]
        tops = scores.argmax(axis=-1).tolist()
        rows = zip(
            scores.tolist(),
            tops,
            _with_nulls(day.features[minute]),
            day.latency_us[minute].tolist(),
            strict=True,
        )
        for container, (row, top, seen, latency_us) in enumerate(rows):
            data = _DATA % (*row, top, row[top], *seen, latency_us)
            found.append(
                Event(
                    id=identity_of(day.number, minute, container),
                    source=DETACHED_SOURCE,
                    type=PREFIX + "prediction",
                    time=when,
                    subject=MODEL,
                    data=msgspec.Raw(data.encode()),
                )
            )
    return found


def prediction_of(day: Day, minute: int, container: int) -> Event:
    """One of these events as the protocol's own code writes it."""
    scores = tuple(day.scores[minute, container].tolist())
    seen = tuple(_nulled(day.features[minute, container].tolist()))
    top = int(day.scores[minute, container].argmax())
    prediction = Prediction(
        model=MODEL,
        model_version=VERSION,
        bundle=BUNDLE,
        variant=VARIANT,
        outputs=(
            OutputSummary(
                name="state", shape=(1, 4), values=scores, top=(top,), score=(scores[top],)
            ),
            OutputSummary(name=INPUT, shape=(1, 4, 1), values=seen),
        ),
        latency_us=float(day.latency_us[minute, container]),
    )
    when = datetime.fromtimestamp(moment_of(day.number, minute), UTC)
    return new_event(prediction, time=when, identity=identity_of(day.number, minute, container))


def readings_of(features: Array, now: float, at: float) -> Iterator[Heard]:
    """Readings of all containers at one time.

    Args:
        features: ``float32[40, 4]``.
        now: seconds since 1970.
        at: monotonic seconds.
    """
    for key, row in zip(KEYS, features.tolist(), strict=True):
        values = dict(zip(FEATURES, _nulled(row), strict=True))
        yield Heard(Reading(stream=STREAM, key=key, values=values), now, at)


def request_of(day: Day, minute: int, at: float) -> Seen:
    """A minute of all containers as one request to the model; ``at`` is in monotonic seconds."""
    scores = day.scores[minute]
    answer = OutputSummary(
        name="state",
        shape=scores.shape,
        top=tuple(scores.argmax(axis=-1).tolist()),
        score=tuple(scores.max(axis=-1).tolist()),
    )
    return Seen(
        model=MODEL,
        version=VERSION,
        bundle=BUNDLE,
        variant=VARIANT,
        inputs={INPUT: day.features[minute]},
        outputs={"state": scores},
        answers=(answer,),
        run_us=float(day.latency_us[minute].sum()),
        time=moment_of(day.number, minute),
        at=at,
    )


def reference_of(day: Day) -> dict[str, NumberSketch | ClassSketch]:
    """Sketches of what a model saw and answered, as its bundle has them."""
    found: dict[str, NumberSketch | ClassSketch] = {
        name: sketch_numbers(day.features[..., index]) for index, name in enumerate(SKETCHED)
    }
    found["state:score"] = sketch_numbers(day.scores.max(axis=-1))
    found["state:top"] = sketch_classes(day.scores.argmax(axis=-1).ravel().tolist())
    return found


def _with_nulls(features: Array) -> Iterator[list[str]]:
    """Rows of numbers as JSON writes them."""
    for row in features.tolist():
        yield [repr(value) if value == value else "null" for value in row]  # noqa: PLR0124 - NaN


def _nulled(row: list[float]) -> list[float | None]:
    return [value if value == value else None for value in row]  # noqa: PLR0124 - NaN
