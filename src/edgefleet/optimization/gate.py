"""The gate: what a candidate must keep, and what it must bring, to be shipped. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefleet.optimization.evaluation import Scores
    from edgefleet.optimization.session import Latency

SLOWER_RATIO = 1.1
"""A candidate counts as slower from 10 % on: two measurements of the same differ by as much."""
SLOWER_FLOOR_S = 100e-6
"""Seconds a call that don't count: asking a device for an inference takes longer."""
_ROUNDING = 1e-12  # 0.97 - 0.96 is a little more than 0.01 in binary


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a candidate passes, and why or why not in a phrase.

    Attributes:
        passed: whether it may be shipped.
        reason: for the report.
        drop: accuracy lost against the model as given, negative where it gained.
    """

    passed: bool
    reason: str
    drop: float


def judge(
    baseline: Scores,
    candidate: Scores,
    *,
    max_drop: float,
    min_class: float | Mapping[str, float] | None = None,
) -> Verdict:
    """Hold a candidate's accuracy against the model as given.

    Args:
        baseline: scores of the model as given; higher is better.
        candidate: scores of the candidate on the same data.
        max_drop: the largest difference allowed, in the same unit.
        min_class: floor for every class, or for the classes named. A class that the model as given
            leaves below its floor may not get worse.
    """
    drop = baseline.accuracy - candidate.accuracy
    if math.isnan(drop):
        return Verdict(passed=False, reason="its accuracy is not a number", drop=drop)
    if drop > max_drop + _ROUNDING:
        reason = (
            f"accuracy {candidate.accuracy:.4g} is {drop:.4g} below {baseline.accuracy:.4g}, "
            f"{max_drop:.4g} allowed"
        )
        return Verdict(passed=False, reason=reason, drop=drop)
    for name, floor in sorted(floors(baseline, min_class).items()):
        found = candidate.by_class.get(name, -math.inf)
        if found < floor - _ROUNDING:
            reason = f"accuracy {found:.4g} of class {name} is below its floor {floor:.4g}"
            return Verdict(passed=False, reason=reason, drop=drop)
    lost = f"loses {drop:.4g}" if drop > 0 else "loses nothing"
    return Verdict(passed=True, reason=f"{lost} of accuracy {baseline.accuracy:.4g}", drop=drop)


def floors(baseline: Scores, min_class: float | Mapping[str, float] | None) -> dict[str, float]:
    """What each class must keep, never more than the model as given has."""
    if min_class is None:
        return {}
    if not isinstance(min_class, Mapping):
        min_class = dict.fromkeys(baseline.by_class, min_class)
    return {
        name: min(floor, baseline.by_class.get(name, floor)) for name, floor in min_class.items()
    }


def is_slower(candidate: Latency, baseline: Latency) -> bool:
    """Whether a candidate's median call takes noticeably longer than the model as given."""
    return (
        candidate.p50_s > baseline.p50_s * SLOWER_RATIO
        and candidate.p50_s > baseline.p50_s + SLOWER_FLOOR_S
    )
