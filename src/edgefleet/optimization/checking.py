"""What can be said here of a file that was made elsewhere: whether it is the model at all."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import AccuracyGateError, InvalidModelError
from edgefleet.optimization import self_test
from edgefleet.optimization.artifact import Artifact
from edgefleet.optimization.closeness import compare
from edgefleet.optimization.evaluation import evaluated
from edgefleet.optimization.gate import judge
from edgefleet.optimization.libraries import available
from edgefleet.optimization.litert_session import COMPILED
from edgefleet.optimization.samples import Samples
from edgefleet.optimization.sessions import LIBRARIES, open_session
from edgefleet.protocol.bundle import Details, Interface, Tolerance
from edgefleet.protocol.tensors import from_bytes

if TYPE_CHECKING:
    from edgefleet.optimization.closeness import Closeness
    from edgefleet.optimization.evaluation import Evaluate, Scores
    from edgefleet.optimization.self_test import SelfTest
    from edgefleet.protocol.layout import BundleLayout

MIN_SNR_DB = 6.0
"""Below, the difference is more than half as large as the output: another model, or another order
of inputs. Eight bits leave 20 dB and more."""

UNSEEN_SHARE = {"int8": 0.25, "fp16": 2e-2}
"""How far answers that nobody saw may lie from the original's, as a share of its largest output."""

_SAME = (
    "check that it is the same model and takes inputs in the same order and range; check=False "
    "takes it as it is"
)
UNASKED = "not checked: as asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found.

    Attributes:
        note: in a phrase, for lineage and report.
        self_test: vectors and tolerance for devices.
        closeness: to the original, on its recorded vectors.
        scores: what ``evaluate`` gave.
        drop: accuracy lost against the original.
    """

    note: str
    self_test: SelfTest
    closeness: tuple[Closeness, ...] = ()
    scores: Scores | None = None
    drop: float | None = None


def why_not(artifact: Artifact) -> str:
    """Why a file can't be opened here; empty where it can."""
    library = LIBRARIES.get(artifact.format)
    if library is None:
        return f"nothing here runs {artifact.format} files"
    if not available(library):
        return f"{library.split('.', 1)[0]} is not installed"
    if artifact.custom_domains:
        return f"operators of {', '.join(artifact.custom_domains)} are not installed here"
    if artifact.format == "tflite" and COMPILED in artifact.path.read_bytes():
        return "it was compiled for an Edge TPU"
    return ""


def unchecked(first: Details, precision: str, note: str) -> Checked:
    """The original's own vectors, with room for what an engine makes of the file."""
    largest = max(
        (
            float(abs(from_bytes(t.data, t.datatype, t.shape, name=t.name)).max(initial=0.0))
            for vector in first.self_test
            for t in vector.outputs
            if t.datatype in {"FP16", "FP32", "FP64"}
        ),
        default=0.0,
    )
    room = float(f"{UNSEEN_SHARE.get(precision, 0.0) * largest:.3g}")
    tolerance = Tolerance(
        absolute=max(first.tolerance.absolute, room), relative=first.tolerance.relative
    )
    vectors = self_test.SelfTest(vectors=first.self_test, tolerance=tolerance)
    return Checked(note=note, self_test=vectors)


def checked(
    bundle: BundleLayout,
    artifact: Artifact,
    *,
    evaluate: Evaluate | None,
    max_drop: float,
) -> Checked:
    """Open the file, and hold its answers against those of the bundle's first variant.

    Raises:
        InvalidModelError: it doesn't open, takes or gives other tensors, or answers otherwise.
        AccuracyGateError: it lost more accuracy than allowed.
        InvalidInputError: ``evaluate`` fails.
    """
    first = bundle.variants[0]
    details = bundle.details(first.name)
    with tempfile.TemporaryDirectory(prefix="edgefleet-check-") as work:
        entry = bundle.materialize(first.name, Path(work) / "first")
        given = Artifact(
            format=first.format,
            precision=first.precision,
            entry=details.entry,
            files={details.entry: entry},
            size_bytes=first.bytes,
            interface=details.interface,
            notes={},
        )
        session = open_session(artifact)
        scores, drop = None, None
        if evaluate is not None:
            outputs = tuple(session.outputs)
            scores = evaluated(evaluate, session.predict, outputs, "the file")
            baseline = evaluated(
                evaluate, open_session(given).predict, outputs, "the bundle's first variant"
            )
            verdict = judge(baseline, scores, max_drop=max_drop)
            drop = verdict.drop
            if not verdict.passed:
                raise AccuracyGateError(
                    f"{artifact.path.name}: {verdict.reason}",
                    cure="make it again with more typical samples, or allow a larger "
                    "max_accuracy_drop",
                )
        samples = _recorded(details) or self_test.made_up_samples(details.interface, seed=0)
        if isinstance(samples, str):
            note = f"opened here, its answers not compared: {samples}"
            return Checked(
                note=note, self_test=self_test.skipped(samples), scores=scores, drop=drop
            )
        found = compare(given, artifact, samples, seed=0)
        return Checked(
            note=_told(artifact, found, samples.count),
            self_test=self_test.record(artifact, samples, seed=0, reference=given),
            closeness=found,
            scores=scores,
            drop=drop,
        )


def refuse_other_callers(found: Interface, due: Interface) -> None:
    """Raise where a model's inputs or outputs aren't what callers of the bundle know.

    Raises:
        InvalidModelError: names, datatypes or numbers of axes differ.
    """
    for kind in ("inputs", "outputs"):
        ours, theirs = (
            [(s.name, s.datatype, len(s.shape)) for s in getattr(side, kind)]
            for side in (found, due)
        )
        if sorted(ours) != sorted(theirs):
            raise InvalidModelError(
                f"its {kind} are {_listed(ours)}, the bundle's {_listed(theirs)}",
                cure="callers know one model: make it with the same inputs and outputs",
            )


def _listed(specs: list[tuple[str, str, int]]) -> str:
    return ", ".join(f"{name} ({datatype}, {axes} axes)" for name, datatype, axes in specs)


def _recorded(details: Details) -> Samples | None:
    """Inputs of the recorded vectors, each a call; None where there are none."""
    import numpy as np

    calls = [
        {t.name: from_bytes(t.data, t.datatype, t.shape, name=t.name) for t in vector.inputs}
        for vector in details.self_test
    ]
    alike = [call for call in calls if all(call[n].shape == a.shape for n, a in calls[0].items())]
    if not alike:
        return None
    arrays = {name: np.stack([call[name] for call in alike]) for name in alike[0]}
    return Samples(arrays=arrays, count=len(alike), step=1, bare=frozenset(arrays))


def _told(artifact: Artifact, found: tuple[Closeness, ...], count: int) -> str:
    """How near its answers lie.

    Raises:
        InvalidModelError: they are another model's.
    """
    if not found:
        return f"opened here on {count} recorded inputs; no output has numbers to compare"
    worst = min(found, key=lambda one: one.snr_db)
    if worst.snr_db < MIN_SNR_DB:
        raise InvalidModelError(
            f"{artifact.path.name} answers otherwise than the bundle's first variant: output "
            f"{worst.output!r} is off by up to {worst.max_error:.3g} ({worst.snr_db:.1f} dB)",
            cure=_SAME,
        )
    near = "equal" if math.isinf(worst.snr_db) else f"within {worst.snr_db:.1f} dB"
    return f"opened here; answers to {count} recorded inputs are {near}"
