"""The gate: what a candidate must keep, and what it must bring, to be shipped. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


def judge_accuracy(baseline: float, candidate: float, max_drop: float) -> Verdict:
    """Hold a candidate's accuracy against the model as given.

    Args:
        baseline: accuracy of the model as given; higher is better.
        candidate: accuracy of the candidate on the same data.
        max_drop: the largest difference allowed, in the same unit.
    """
    drop = baseline - candidate
    if math.isnan(drop):
        return Verdict(passed=False, reason="its accuracy is not a number", drop=drop)
    if drop > max_drop + _ROUNDING:
        reason = (
            f"accuracy {candidate:.4g} is {drop:.4g} below {baseline:.4g}, {max_drop:.4g} allowed"
        )
        return Verdict(passed=False, reason=reason, drop=drop)
    lost = f"loses {drop:.4g}" if drop > 0 else "loses nothing"
    return Verdict(passed=True, reason=f"{lost} of accuracy {baseline:.4g}", drop=drop)


def is_slower(candidate: Latency, baseline: Latency) -> bool:
    """Whether a candidate's median call takes noticeably longer than the model as given."""
    return (
        candidate.p50_s > baseline.p50_s * SLOWER_RATIO
        and candidate.p50_s > baseline.p50_s + SLOWER_FLOOR_S
    )
