"""Trials that passed, written as the variants of one bundle."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.optimization import self_test
from edgefleet.optimization.libraries import versions
from edgefleet.optimization.packaging import add_artifact
from edgefleet.optimization.reference import answer_sketches, reference_sketches
from edgefleet.optimization.report import LINEAGE
from edgefleet.protocol.bundle import Details
from edgefleet.protocol.layout import BundleWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.report import OptimizationReport
    from edgefleet.optimization.samples import Samples
    from edgefleet.optimization.trials import Trial

TOOLS = ("edgefleet", "numpy", "onnx", "onnxruntime")
"""Distributions whose versions lineage names."""


def details_of(
    trials: Sequence[Trial],
    report: OptimizationReport,
    samples: Samples | None,
    *,
    labels: tuple[str, ...],
    metrics: Mapping[str, float],
    seed: int,
) -> dict[str, Details]:
    """What the bundle says of each variant that is shipped, by its name.

    Args:
        trials: the model as given first; its interface is every variant's.
        report: tells which are shipped.
        samples: the caller's calibration data.
        labels: class names by index.
        metrics: figures to carry along.
        seed: decides which samples become self-test vectors.

    Raises:
        InvalidInputError: the model fails on a calibration sample.
    """
    given = trials[0].artifact
    if given is None:
        return {}
    shipped = {row.variant for row in report.rows if row.outcome == "shipped"}
    lineage = {
        "source": given.digest(),
        "seed": str(seed),
        LINEAGE: json.dumps(report.lasting(), separators=(",", ":")),
        **({} if samples is None else {"calibration": samples.digest()}),
        **versions(*TOOLS),
    }
    sketches = {} if samples is None else reference_sketches(samples, seed=seed)
    found: dict[str, Details] = {}
    for trial in trials:
        if trial.artifact is None or trial.name not in shipped:
            continue
        plain = tested(trial.name, trial.artifact, given, samples, seed=seed)
        scores = trial.scores
        answers = {} if samples is None else answer_sketches(trial.artifact, samples)
        found[trial.name] = replace(
            plain,
            labels=labels,
            sketches={**sketches, **answers},
            metrics={**metrics, **({} if scores is None else {"accuracy": scores.accuracy})},
            lineage={**lineage, **trial.artifact.notes, **plain.lineage},
        )
    return found


def tested(
    name: str, artifact: Artifact, given: Artifact, samples: Samples | None, *, seed: int
) -> Details:
    """What a device needs to know of a variant to run it and test it."""
    test = _self_test(artifact, given, samples, seed=seed)
    return Details(
        variant=name,
        entry=artifact.entry,
        interface=given.interface,
        self_test=test.vectors,
        tolerance=test.tolerance,
        lineage={"self_test": test.note} if test.note else {},
    )


def _self_test(
    artifact: Artifact, given: Artifact, samples: Samples | None, *, seed: int
) -> self_test.SelfTest:
    if samples is None:
        return self_test.record_unasked(artifact, seed=seed)
    reference = given if artifact is not given else None
    return self_test.record(artifact, samples, seed=seed, reference=reference)


def write(
    to: Path,
    trials: Sequence[Trial],
    details: Mapping[str, Details],
    report: OptimizationReport,
    *,
    progress: Callable[[int], object],
) -> None:
    """Write the bundle's folder; it appears whole or not at all."""
    targets = {row.variant: row.targets for row in report.rows}
    with BundleWriter(to) as writer:
        for trial in trials:
            if trial.artifact is not None and trial.name in details:
                add_artifact(
                    writer,
                    trial.artifact,
                    details[trial.name],
                    name=report.model,
                    targets=targets[trial.name],
                    progress=progress,
                )
        writer.finish()
