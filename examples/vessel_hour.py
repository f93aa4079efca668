"""One hour of the vessel at 1 Hz, through the real window rules of the runtime, and by numpy.

144,000 readings of four values become 2,400 windows of a minute each.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from vessel_cargo import CONTAINERS, FEATURES
from vessel_events import KEYS, STREAM, moment_of, readings_of

from edgefleet.protocol.event import Aggregate
from edgefleet.protocol.policy import TelemetryPolicy, WindowRule
from edgefleet.protocol.release import Release
from edgefleet_runtime.watch.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel_cargo import Array

    from edgefleet.protocol.event import Window

    Place = tuple[str, float]
    """A key, and the start of its window in seconds since 1970."""

SECONDS = 60  # of a window
RULE = WindowRule(
    name="minute",
    stream=STREAM,
    size_s=float(SECONDS),
    quantiles=(0.05, 0.5, 0.95),
    edges=(-20.0, -15.0, 0.0, 2.0, 4.0, 90.0),
)


def reduced(seconds: Array) -> list[Window]:
    """What the rules make of an hour's readings; ``seconds`` as of `Cargo.seconds`."""
    windows: list[Window] = []
    rules = Windows(windows.append, lambda _: None)
    rules.follow(Release(telemetry=TelemetryPolicy(windows=(RULE,))))
    for second, features in enumerate(seconds):
        for heard in readings_of(features, moment_of(0, 0) + second, float(second)):
            rules.hear(heard)
        rules.turn(float(second), moment_of(0, 0) + second)
    rules.close()
    return windows


def expected(seconds: Array) -> dict[Place, dict[str, Aggregate]]:
    """The same by numpy: aggregates of each value, by key and start in seconds since 1970."""
    found: dict[Place, dict[str, Aggregate]] = {}
    for minute in range(len(seconds) // SECONDS):
        rows = seconds[SECONDS * minute : SECONDS * (minute + 1)].astype(np.float64)
        for container in range(CONTAINERS):
            found[KEYS[container], moment_of(0, minute)] = {
                name: _aggregate(rows[:, container, index]) for index, name in enumerate(FEATURES)
            }
    return found


def differing(windows: Sequence[Window], wanted: Mapping[Place, Mapping[str, Aggregate]]) -> int:
    """How many figures of windows differ from those wanted, and how many of these are missing.

    Everything is equal to the last bit but the mean, whose sum is taken in another order: it may be
    off by one part in 10¹².
    """
    found = {(w.key, w.start.timestamp()): w.values for w in windows}
    return sum(
        not _same(found.get(place, {}).get(name), aggregate)
        for place, values in wanted.items()
        for name, aggregate in values.items()
    ) + (len(windows) - len(wanted))


def _same(found: Aggregate | None, wanted: Aggregate) -> bool:
    if found is None or replace(found, mean=None) != replace(wanted, mean=None):
        return False
    if found.mean is None or wanted.mean is None:
        return found.mean is wanted.mean
    return math.isclose(found.mean, wanted.mean, rel_tol=1e-12)


def _aggregate(values: NDArray[np.float64]) -> Aggregate:
    present = values[~np.isnan(values)]
    if not present.size:
        return Aggregate(count=0, missing=values.size, histogram=(0,) * (len(RULE.edges) + 1))
    ranks = np.quantile(present, RULE.quantiles, method="inverted_cdf")
    histogram, _ = np.histogram(present, (-np.inf, *RULE.edges, np.inf))
    return Aggregate(
        count=present.size,
        missing=values.size - present.size,
        mean=float(present.mean()),
        least=float(present.min()),
        most=float(present.max()),
        quantiles={f"{q:g}": float(v) for q, v in zip(RULE.quantiles, ranks, strict=True)},
        histogram=tuple(histogram.tolist()),
    )
