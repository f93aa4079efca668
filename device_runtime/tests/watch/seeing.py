"""Requests as the tap hands them on, a spool that keeps what it is given, and references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import to_builtins
from edgefleet.protocol.event import Alarm, Event, EventData, SketchWindow
from edgefleet.protocol.policy import DriftPolicy, TelemetryPolicy
from edgefleet.protocol.release import Release, ReleaseModel
from edgefleet.protocol.sketch import sketch_classes, sketch_numbers
from edgefleet_runtime.serve.summary import summarize
from edgefleet_runtime.watch.seen import Seen

HOUR = 3600.0
START = 1_800_000_000.0  # a multiple of an hour


def seen(
    inputs: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, NDArray[Any]] | None = None,
    *,
    time: float = START,
    at: float = 0.0,
    **more: Any,
) -> Seen:
    """A request to ``digits``."""
    outputs = outputs or {}
    about = {"model": "digits", "version": "1", "bundle": "sha256:a", "variant": "fp32", **more}
    answers = about.pop("answers", None) or summarize(outputs, 16)
    return Seen(
        inputs=inputs, outputs=outputs, answers=answers, run_us=1.0, time=time, at=at, **about
    )


def release(drift: DriftPolicy | None = None, **more: Any) -> Release:
    """A release of the model digits with that policy."""
    model = ReleaseModel(name="digits", version="1", bundle=digest_of(b"digits"))
    return Release(models=(model,), telemetry=TelemetryPolicy(drift=drift, **more))


class Kept:
    """A spool that keeps what it is given in memory; with ``busy`` it takes its time."""

    def __init__(self) -> None:
        self.told: list[EventData] = []
        self.events: list[Event] = []
        self.busy = False

    def tell(self, data: EventData) -> None:
        self.told.append(data)

    def keep(self, event: Event, done: Callable[[bool], None]) -> None:
        self.events.append(event)
        if not self.busy:
            done(True)

    @property
    def windows(self) -> list[SketchWindow]:
        found = [event.payload() for event in self.events]
        return [data for data in found if isinstance(data, SketchWindow)]

    @property
    def alarms(self) -> list[Alarm]:
        return [data for data in self.told if isinstance(data, Alarm)]


def references(
    inputs: Mapping[str, NDArray[Any]], tops: NDArray[Any] | None = None
) -> dict[str, Any]:
    """A bundle's reference sketches: of features by name, and of ``y:top``."""
    found = {name: to_builtins(sketch_numbers(values)) for name, values in inputs.items()}
    if tops is not None:
        found["y:top"] = to_builtins(sketch_classes(np.asarray(tops).tolist()))
    return found
