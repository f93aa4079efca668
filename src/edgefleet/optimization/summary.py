"""From trials and assignments to the report: one pure function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgefleet.optimization.choice import runs_here
from edgefleet.optimization.report import (
    HERE,
    CandidateRow,
    DeviceRow,
    LayerRow,
    OptimizationReport,
    OutputRow,
    TargetRow,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.optimization.choice import Assignment
    from edgefleet.optimization.layers import Loss
    from edgefleet.optimization.on_device import OnDevice
    from edgefleet.optimization.report import Outcome
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
    on_device: OnDevice | None = None,
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
        on_device: what a real device found.
    """
    rows = [
        _row(trial, assigned, given=trial is trials[0], wanted=wanted, arch=arch)
        for trial in trials
    ]
    latencies = {trial.name: trial.latency for trial in trials}
    targets = []
    for target, found in zip(wanted, assigned, strict=True):
        where, latency, name = HERE, None, found.variant or ""
        if on_device is not None and on_device.target == target.name:
            where, latency = on_device.device, on_device.latency(name)
        elif runs_here(target, arch):
            latency = latencies.get(name)
        targets.append(
            TargetRow(
                target=target.name,
                variant=found.variant,
                why=found.why,
                p50_ms=None if latency is None else latency.p50_s * 1e3,
                p99_ms=None if latency is None else latency.p99_s * 1e3,
                measured_on=None if latency is None else where,
            )
        )
    return OptimizationReport(
        model=model,
        machine=arch,
        max_accuracy_drop=max_accuracy_drop,
        calibration_samples=calibration_samples,
        rows=tuple(rows),
        targets=tuple(targets),
        on_device=() if on_device is None else _device_rows(on_device),
    )


def _device_rows(found: OnDevice) -> tuple[DeviceRow, ...]:
    rows = []
    for figures in found.figures.values():
        latency, test = found.latency(figures.variant), figures.self_test
        rows.append(
            DeviceRow(
                variant=figures.variant,
                device=found.device,
                outcome=figures.outcome,
                why=figures.reason,
                providers=figures.providers,
                p50_ms=None if latency is None else latency.p50_s * 1e3,
                p99_ms=None if latency is None else latency.p99_s * 1e3,
                memory_bytes=figures.memory_bytes,
                max_error=None if test is None else test.max_error,
            )
        )
    return tuple(rows)


def _row(
    trial: Trial,
    assigned: Sequence[Assignment],
    *,
    given: bool,
    wanted: Sequence[HardwareTarget],
    arch: str,
) -> CandidateRow:
    marked = tuple(found.target for found in assigned if found.variant == trial.name)
    why = [trial.refused or trial.why]
    if trial.layers:
        why.append(f"loses most at {', '.join(loss.layer for loss in trial.layers)}")
    if trial.slower and any(runs_here(target, arch) for target in wanted):
        why.append(trial.slower)
    if not (given or marked or trial.refused or trial.slower):
        why.append(NOBODY)
    latency, scores = trial.latency, trial.scores
    classes = {} if scores is None else scores.by_class
    worst = min(classes, key=lambda name: (classes[name], name), default=None)
    return CandidateRow(
        variant=trial.name,
        precision=trial.precision,
        format=trial.format,
        outcome="shipped" if given or marked else _outcome(trial),
        why="; ".join(filter(None, why)),
        targets=() if given else marked,
        size_bytes=None if trial.artifact is None else trial.artifact.size_bytes,
        accuracy=None if scores is None else scores.accuracy,
        accuracy_drop=trial.drop,
        worst_class=worst,
        worst_class_accuracy=None if worst is None else classes[worst],
        outputs=tuple(OutputRow.of(found) for found in trial.closeness),
        layers=tuple(_layer(loss) for loss in trial.layers),
        p50_ms=None if latency is None else latency.p50_s * 1e3,
        p99_ms=None if latency is None else latency.p99_s * 1e3,
        memory_bytes=trial.memory_bytes,
    )


def _outcome(trial: Trial) -> Outcome:
    if trial.artifact is None:
        return "not made" if trial.tried else "not tried"
    return "rejected" if trial.refused or trial.slower else "passed"


def _layer(loss: Loss) -> LayerRow:
    error = float(f"{loss.error:.3g}") if math.isfinite(loss.error) else None
    return LayerRow(layer=loss.layer, tensor=loss.tensor, error=error)
