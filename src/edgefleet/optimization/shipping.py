"""Trials that passed, written as the variants of one bundle."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from edgefleet.optimization import self_test
from edgefleet.optimization.choice import QUANTIZED
from edgefleet.optimization.libraries import versions
from edgefleet.optimization.packaging import add_onnx, entry_of
from edgefleet.optimization.quantize import RECIPE
from edgefleet.optimization.reference import reference_sketches
from edgefleet.protocol.bundle import Details
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.layout import BundleWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet.optimization.onnx_file import OnnxFile
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
    """What the bundle says of each variant that is shipped, by its precision.

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
    given = trials[0].file
    if given is None:
        return {}
    shipped = {row.precision for row in report.rows if row.outcome == "shipped"}
    lineage = {
        "source": source_digest(given),
        "seed": str(seed),
        **({} if samples is None else {"calibration": samples.digest()}),
        **versions(*TOOLS),
    }
    sketches = {} if samples is None else reference_sketches(samples, seed=seed)
    found: dict[str, Details] = {}
    for trial in trials:
        if trial.file is None or trial.precision not in shipped:
            continue
        made = trial.file is not given
        test = (
            self_test.record_unasked(trial.file, seed=seed)
            if samples is None
            else self_test.record(
                trial.file, samples, seed=seed, reference=given.path if made else None
            )
        )
        notes = {**lineage, **({"self_test": test.note} if test.note else {})}
        if made and trial.precision == QUANTIZED:
            notes["quantization"] = RECIPE
        found[trial.precision] = Details(
            variant=trial.precision,
            entry=entry_of(trial.file),
            interface=given.interface,
            labels=labels,
            self_test=test.vectors,
            tolerance=test.tolerance,
            sketches=sketches,
            metrics={**metrics, **({} if trial.accuracy is None else {"accuracy": trial.accuracy})},
            lineage=notes,
        )
    return found


def write(
    to: Path,
    trials: Sequence[Trial],
    details: Mapping[str, Details],
    report: OptimizationReport,
    *,
    progress: Callable[[int], object],
) -> None:
    """Write the bundle's folder; it appears whole or not at all."""
    targets = {row.precision: row.targets for row in report.rows}
    with BundleWriter(to) as writer:
        for trial in trials:
            if trial.file is not None and trial.precision in details:
                add_onnx(
                    writer,
                    trial.file,
                    details[trial.precision],
                    name=report.model,
                    precision=trial.precision,
                    targets=targets[trial.precision],
                    progress=progress,
                )
        writer.finish()


def source_digest(file: OnnxFile) -> str:
    """Digest of a model: of its file, or, with external data, of a list of its files' digests."""
    digest, _ = digest_of_file(file.path)
    if not file.external:
        return digest
    lines = [f"{digest} model\n"]
    lines += [f"{digest_of_file(part.path)[0]} {part.location}\n" for part in file.external]
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
