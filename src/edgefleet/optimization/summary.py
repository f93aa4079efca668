"""From trials and assignments to the report: one pure function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.optimization.choice import QUANTIZED, runs_here
from edgefleet.optimization.report import CandidateRow, OptimizationReport, TargetRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.optimization.choice import Assignment
    from edgefleet.optimization.trials import Trial
    from edgefleet.protocol.target import HardwareTarget

NOBODY = "no target asked for runs it best"


def summarize(
    model: str,
    trials: Sequence[Trial],
    wanted: Sequence[HardwareTarget],
    assigned: Sequence[Assignment],
    *,
    arch: str,
    max_accuracy_drop: float,
    calibration_samples: int,
) -> OptimizationReport:
    """The report of one call.

    Args:
        model: its name.
        trials: the model as given first.
        wanted: the targets asked for.
        assigned: what each of them gets, in the same order.
        arch: this machine's.
        max_accuracy_drop: what the gate allowed.
        calibration_samples: how many there were.
    """
    rows = [
        _row(trial, assigned, given=trial is trials[0], wanted=wanted, arch=arch)
        for trial in trials
    ]
    if all(trial.precision != QUANTIZED for trial in trials):
        rows.append(
            CandidateRow(variant=QUANTIZED, precision=QUANTIZED, outcome="not made", why=NOBODY)
        )
    latencies = {trial.precision: trial.latency for trial in trials}
    targets = []
    for target, found in zip(wanted, assigned, strict=True):
        latency = latencies.get(found.precision or "") if runs_here(target, arch) else None
        targets.append(
            TargetRow(
                target=target.name,
                variant=found.precision,
                why=found.why,
                p50_ms=None if latency is None else latency.p50_s * 1e3,
            )
        )
    return OptimizationReport(
        model=model,
        machine=arch,
        max_accuracy_drop=max_accuracy_drop,
        calibration_samples=calibration_samples,
        rows=tuple(rows),
        targets=tuple(targets),
    )


def _row(
    trial: Trial,
    assigned: Sequence[Assignment],
    *,
    given: bool,
    wanted: Sequence[HardwareTarget],
    arch: str,
) -> CandidateRow:
    marked = tuple(found.target for found in assigned if found.precision == trial.precision)
    why = [trial.refused or trial.why]
    if trial.slower and any(runs_here(target, arch) for target in wanted):
        why.append(trial.slower)
    if not (given or marked or trial.refused or trial.slower):
        why.append(NOBODY)
    latency = trial.latency
    return CandidateRow(
        variant=trial.precision,
        precision=trial.precision,
        outcome=(
            "shipped" if given or marked else "not made" if trial.file is None else "rejected"
        ),
        why="; ".join(filter(None, why)),
        targets=() if given else marked,
        size_bytes=None if trial.file is None else trial.file.size_bytes,
        accuracy=trial.accuracy,
        accuracy_drop=trial.drop,
        p50_ms=None if latency is None else latency.p50_s * 1e3,
        p99_ms=None if latency is None else latency.p99_s * 1e3,
    )
