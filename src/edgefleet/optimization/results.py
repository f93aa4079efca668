"""What one call found of its candidates, kept for the next: made files, accuracies, closeness.

Each result is kept under everything that decides it: the model, the recipe, the data, the seed, the
code of this package, the versions of the tools and the kind of machine. Accuracies also under the
fingerprint of ``evaluate``; where that has none (`fingerprint`), they are kept for this call only.
So an interrupted call goes on where it was: what was judged is not judged again, the steps of a
search included. Latency and memory are never kept: they are of the machine's moment.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import platform
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from edgefleet.optimization.artifact import Artifact, of_onnx
from edgefleet.optimization.closeness import Closeness, compare
from edgefleet.optimization.evaluation import Scores
from edgefleet.optimization.fingerprint import digest_of
from edgefleet.optimization.libraries import versions
from edgefleet.protocol.bundle import Interface
from edgefleet.protocol.typed import convert

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.optimization.cache import Cache
    from edgefleet.optimization.evaluation import Evaluate
    from edgefleet.optimization.gate import Verdict
    from edgefleet.optimization.makers import Source
    from edgefleet.optimization.recipes import Recipe
    from edgefleet.optimization.samples import Samples

T = TypeVar("T")

log = logging.getLogger(__name__)

TOOLS = (
    *("edgefleet", "numpy", "protobuf", "onnx", "onnxruntime", "onnxslim", "openvino", "nncf"),
    *("tensorflow", "onnx2tf", "ai-edge-litert", "tflite-runtime", "scikit-learn", "skl2onnx"),
)
"""Distributions that decide what is made and what it computes."""

SEARCHES = frozenset({"mixed"})
"""Kinds of recipes whose makers ask the gate: what they make depends on ``evaluate`` too."""


class _Made(msgspec.Struct, frozen=True):
    format: str
    precision: str
    entry: str
    size_bytes: int
    interface: Interface
    notes: dict[str, str]
    opset: int | None
    custom_domains: tuple[str, ...]
    files: tuple[str, ...]


class _Scores(msgspec.Struct, frozen=True):
    accuracy: float
    by_class: dict[str, float]


class _Apart(msgspec.Struct, frozen=True):
    output: str
    snr_db: str  # as text: JSON has no infinity
    max_error: str


class Results:
    """Results of one call, and, with a cache, of calls before it.

    Args:
        cache: None keeps them for this call only.
        evaluate: the caller's.
        gate: what else decides a verdict.
    """

    def __init__(
        self,
        cache: Cache | None = None,
        *,
        evaluate: Evaluate | None = None,
        gate: object = None,
    ) -> None:
        self._cache = cache
        self._evaluate = evaluate
        self._gate = gate
        self._fingerprint = digest_of(evaluate) if cache and evaluate is not None else None
        self._scores: dict[str, Scores] = {}
        self._samples: tuple[Samples, str] | None = None
        self._identities: dict[object, str] = {}

    def scores(self, artifact: Artifact, judge: Callable[[], Scores]) -> Scores:
        """What ``evaluate`` gives for an artifact: kept, or judged now."""
        model = self._identity(artifact)
        if model not in self._scores:
            self._scores[model] = self._read_scores(model) or self._judged(model, judge)
        return self._scores[model]

    def _read_scores(self, model: str) -> Scores | None:
        found = self._read("scores", self._judgement(model), _Scores)
        return None if found is None else Scores(found.accuracy, found.by_class)

    def _judged(self, model: str, judge: Callable[[], Scores]) -> Scores:
        scores = judge()
        key = self._judgement(model)
        if self._cache is None or self._evaluate is None or key is None:
            return scores
        if digest_of(self._evaluate) != self._fingerprint:
            self._fingerprint = None
            log.info("results of evaluate() are kept for this call only: it changes what it uses")
            return scores
        self._cache.write("scores", key, _Scores(scores.accuracy, dict(scores.by_class)))
        return scores

    def _judgement(self, model: str) -> dict[str, object] | None:
        if self._fingerprint is None:
            return None
        return {"artifact": model, "evaluate": self._fingerprint, "tools": _tools()}

    def made(
        self, recipe: Recipe, source: Source, to: Path, make: Callable[[Source], Artifact]
    ) -> Artifact:
        """The candidate of a recipe: kept, or made now.

        Args:
            recipe: what to make.
            source: of what.
            to: an empty folder; what is kept is copied into it.
            make: makes it of a source.

        Raises:
            NotMade: from ``make``.
        """
        if self._cache is None:
            return make(source)
        key = self._recipe(recipe, source)
        kept = self._read("made", key, _Made, to=to / "kept")
        if kept is not None:
            return _artifact(kept, to / "kept")
        asked: list[Artifact] = []
        judge = source.judge

        def noted(artifact: Artifact) -> Verdict:
            asked.append(artifact)
            assert judge is not None  # noqa: S101 - for mypy: it is only set with one
            return judge(artifact)

        made = make(source if judge is None else replace(source, judge=noted))
        if key is not None and (recipe.kind in SEARCHES or not asked):
            self._cache.write("made", key, _plain(made), made.files)
        return made

    def _recipe(self, recipe: Recipe, source: Source) -> dict[str, object] | None:
        key: dict[str, object] = {
            "recipe": recipe.digest(),
            "model": self._identity(of_onnx(source.file)),
            "samples": None if source.samples is None else self._digest(source.samples),
            "seed": source.seed,
            "exclude": list(source.exclude),
            "base": None if source.base is None else self._identity(source.base),
            "tools": _tools(),
        }
        if recipe.kind not in SEARCHES:
            return key
        if self._fingerprint is None:
            return None
        tried = {name: self._identity(artifact) for name, artifact in source.tried.items()}
        return {**key, "tried": tried, "evaluate": self._fingerprint, "gate": self._gate}

    def closeness(
        self,
        given: Artifact,
        artifact: Artifact,
        samples: Samples,
        *,
        seed: int,
    ) -> tuple[Closeness, ...]:
        """How close an artifact is to the model as given: kept, or compared now."""
        if self._cache is None:
            return compare(given, artifact, samples, seed=seed)
        key: dict[str, object] = {
            "given": self._identity(given),
            "artifact": self._identity(artifact),
            "samples": self._digest(samples),
            "seed": seed,
            "tools": _tools(),
        }
        kept = self._read("closeness", key, tuple[_Apart, ...])
        if kept is not None:
            return tuple(Closeness(p.output, float(p.snr_db), float(p.max_error)) for p in kept)
        found = compare(given, artifact, samples, seed=seed)
        parts = [_Apart(p.output, repr(p.snr_db), repr(p.max_error)) for p in found]
        self._cache.write("closeness", key, parts)
        return found

    def _identity(self, artifact: Artifact) -> str:
        seen = _seen(artifact)
        if seen not in self._identities:
            self._identities[seen] = _identity(artifact)
        return self._identities[seen]

    def _digest(self, samples: Samples) -> str:
        if self._samples is None or self._samples[0] is not samples:
            self._samples = (samples, samples.digest())
        return self._samples[1]

    def _read(
        self, kind: str, key: dict[str, object] | None, form: type[T], *, to: Path | None = None
    ) -> T | None:
        """What is kept, in the form that this code, whose digest is in every key, wrote."""
        value = None if self._cache is None or key is None else self._cache.read(kind, key, to=to)
        return None if value is None else convert(value, form)


def _plain(made: Artifact) -> _Made:
    return _Made(
        format=made.format,
        precision=made.precision,
        entry=made.entry,
        size_bytes=made.size_bytes,
        interface=made.interface,
        notes=dict(made.notes),
        opset=made.opset,
        custom_domains=made.custom_domains,
        files=tuple(made.files),
    )


def _artifact(kept: _Made, folder: Path) -> Artifact:
    return Artifact(
        format=kept.format,
        precision=kept.precision,
        entry=kept.entry,
        files={name: folder / name for name in kept.files},
        size_bytes=kept.size_bytes,
        interface=kept.interface,
        notes=kept.notes,
        opset=kept.opset,
        custom_domains=kept.custom_domains,
    )


def _seen(artifact: Artifact) -> object:
    """What changes with an artifact's files, without reading them."""
    files = tuple((str(path), path.stat()) for path in artifact.files.values())
    times = tuple((path, info.st_size, info.st_mtime_ns) for path, info in files)
    return (artifact.format, artifact.entry, artifact.interface, times)


def _identity(artifact: Artifact) -> str:
    """Everything that decides what an artifact computes."""
    hasher = hashlib.sha256()
    for part in (artifact.format, artifact.entry, artifact.digest()):
        hasher.update(part.encode() + b"\n")
    hasher.update(msgspec.json.encode(artifact.interface))
    return "sha256:" + hasher.hexdigest()


@functools.cache
def _tools() -> dict[str, str]:
    """Versions of all that makes and runs candidates, this package's own code by content."""
    hasher = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        hasher.update(path.name.encode() + b"\n" + path.read_bytes())
    return {
        **versions(*TOOLS),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "code": hasher.hexdigest(),
    }
