"""`convert`: a fitted estimator as an ONNX file that was held against it.

Rules kept here:

- Nothing is written that doesn't answer as the original does on the caller's own rows.
- float32 first. Where that flips an answer, scalers work in float64 between float32; where it
  still does, all of it is float64, from the inputs on. What was chosen is told.
- The same estimator, rows and library versions give the same bytes.
- The estimator is asked and read in memory. Nothing is pickled.
"""

from __future__ import annotations

import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgefleet.errors import InvalidInputError, InvalidModelError
from edgefleet.optimization import classical_graph as graphs
from edgefleet.optimization import classical_tools as tools
from edgefleet.optimization.classical_answers import Kind, Original, kind_of, model_answers
from edgefleet.optimization.classical_check import (
    MAX_LABELS,
    MAX_SCORES,
    TOLERANCE,
    Answers,
    Difference,
    Scale,
    compare,
    edges,
)
from edgefleet.optimization.classical_table import table_of
from edgefleet.optimization.libraries import require, versions
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.session import OnnxSession

if TYPE_CHECKING:
    import onnx

    from edgefleet.optimization.classical_table import Table
    from edgefleet.optimization.samples import Feed
    from edgefleet.protocol.bundle import Interface

log = logging.getLogger(__name__)

Precision = Literal["auto", "float32", "float64"]
Arithmetic = Literal["float32", "float32, scaled in float64", "float64"]

MAX_ROWS = 10_000
"""More rows than these are thinned out evenly before they are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted(os.PathLike[str]):
    """An ONNX file that answers as an estimator does. `optimize` and `open` take it as a path.

    Attributes:
        path: the file.
        interface: its inputs and outputs.
        labels: class names in the order of the columns of ``probabilities`` or ``scores``; empty
            where it doesn't classify.
        arrays: the samples as the model takes them, by input: calibration data for `optimize`.
        arithmetic: what the numbers are worked on in; with ``float64`` the inputs are it, too.
        on_samples: how far its answers lie from the original's on the samples.
        on_edges: the same between samples, next to where the original's answer changes; None where
            no feature can be moved.
        tools: versions of the libraries that made it.
    """

    path: Path
    interface: Interface
    labels: tuple[str, ...]
    arrays: Feed
    arithmetic: Arithmetic
    on_samples: Difference
    on_edges: Difference | None
    tools: dict[str, str]

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        edge = "" if self.on_edges is None else f"\nnext to a change of answer: {self.on_edges}"
        return f"{self.path} ({self.arithmetic})\non the samples: {self.on_samples}{edge}"


@dataclass(frozen=True, slots=True)
class _Question:
    """The original, its answers, and how another's are judged."""

    original: Original
    rows: Table
    said: Answers
    edge: Table | None
    edge_said: Answers | None
    scale: Scale
    tolerance: float


@dataclass(frozen=True, slots=True)
class _Attempt:
    arithmetic: Arithmetic
    model: onnx.ModelProto
    samples: Difference
    edges: Difference | None

    @property
    def faults(self) -> tuple[int, int]:
        """What to have little of: rows of the caller's that differ, then rows on the edge."""
        edge = 0 if self.edges is None else self.edges.labels + self.edges.scores
        return self.samples.labels + self.samples.scores, edge


def convert(
    estimator: object,
    samples: object,
    to: str | os.PathLike[str],
    *,
    precision: Precision = "auto",
    tolerance: float = TOLERANCE,
    max_labels: float = MAX_LABELS,
    max_scores: float = MAX_SCORES,
) -> Converted:
    """The ONNX file of a fitted estimator, verified against the estimator's own predictions.

    A classifier's file gives ``label`` and ``probabilities`` (``scores`` where it has none), a
    regressor's ``prediction``, a clusterer's and an outlier detector's ``label`` and ``scores``. It
    takes one matrix ``X``, or, for a pandas DataFrame with columns of different kinds or an
    estimator that picks columns by name, one ``[rows, 1]`` input a column.

    Args:
        estimator: a fitted estimator or pipeline of scikit-learn, LightGBM or XGBoost.
        samples: rows as ``estimator.predict`` takes them, that it is then held against: an array
            or a pandas DataFrame. Held-out ones say more than those it was trained on: nearest
            neighbours of a training row tie.
        to: the file to write; one that is there is replaced.
        precision: of the numbers that go in. ``auto`` is float32 unless that flips an answer.
        tolerance: by how much a score may lie apart, as a part of 1 (probabilities) or of the range
            of the original's scores or predictions.
        max_labels: share of samples whose label may differ.
        max_scores: share of samples whose scores may lie further apart than ``tolerance``.

    Raises:
        InvalidInputError: the samples don't suit the estimator or no tensor holds them, or the file
            can't be written.
        InvalidModelError: the estimator isn't fitted, nothing converts it, or what came out answers
            otherwise than it.
        MissingExtraError: a library of the extra ``classical`` is missing.
    """
    require(
        "numpy", "onnx", "onnxruntime", "sklearn", "skl2onnx", "threadpoolctl", extra="classical"
    )
    kind = _checked(estimator)
    table = table_of(samples, by_column=_picks_columns(estimator))
    target = Path(to)
    if not target.parent.is_dir():
        raise InvalidInputError(f"there is no folder {target.parent}", cure="make it first")
    question = _question(Original(estimator, kind), table, tolerance)
    with tempfile.TemporaryDirectory(prefix=".edgefleet-convert-", dir=target.parent) as work:
        best = _best(question, precision, Path(work))
        _refuse(best, question, max_labels=max_labels, max_scores=max_scores)
        written = _save(best.model, Path(work) / "model.onnx")
        written.replace(target)
    if best.arithmetic != "float32":
        log.warning("%s: in float32 some answers differ, so it is %s", target.name, best.arithmetic)
    return Converted(
        path=target,
        interface=inspect(target).interface,
        labels=question.original.labels,
        arrays=table.feed(double=best.arithmetic == "float64"),
        arithmetic=best.arithmetic,
        on_samples=best.samples,
        on_edges=best.edges,
        tools=versions(*tools.TOOLS),
    )


def as_onnx_file(model: object, calibration: object, folder: Path) -> Converted:
    """What `optimize` and `push` do with a model that is no path: convert it into ``folder``.

    Raises:
        InvalidInputError: it is no estimator, or comes without samples.
        InvalidModelError: as `convert`.
        MissingExtraError: as `convert`.
    """
    if not hasattr(model, "predict") and not hasattr(model, "fit"):
        raise InvalidInputError(
            f"the model is a {type(model).__name__}, neither a path nor an estimator",
            cure="give the path of an ONNX file, as onnx.save(model, 'model.onnx') leaves it, or a "
            "fitted estimator of scikit-learn, LightGBM or XGBoost",
        )
    if calibration is None:
        raise InvalidInputError(
            f"the {type(model).__name__} comes without samples to hold its conversion against",
            cure="give calibration=X: some hundred rows as its predict takes them",
        )
    return convert(model, calibration, folder / "model.onnx")


def _checked(estimator: Any) -> Kind:  # noqa: ANN401 - scikit-learn has no types
    """What kind of estimator it is.

    Raises:
        InvalidModelError: it is none, isn't fitted, or can't predict.
    """
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    name = type(estimator).__name__
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        raise InvalidModelError(
            f"{name if not isinstance(estimator, type) else estimator.__name__} is no estimator "
            "as scikit-learn has them",
            cure="give a fitted estimator object; of LightGBM and XGBoost one of LGBMClassifier, "
            "LGBMRegressor, XGBClassifier, XGBRegressor instead of a Booster",
        )
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise InvalidModelError(f"{name} is not fitted", cure="call fit on it first") from error
    return kind_of(estimator)


def _picks_columns(estimator: object) -> bool:
    return any(type(part).__name__ == "ColumnTransformer" for part in tools.parts(estimator))


def _question(original: Original, table: Table, tolerance: float) -> _Question:
    import numpy as np
    from threadpoolctl import threadpool_limits

    width = getattr(original.estimator, "n_features_in_", None)
    if width is not None and table.width != width and not table.columns:
        raise InvalidInputError(
            f"the samples have {table.width} features, the estimator was fitted on {width}",
            cure="give rows as its predict takes them",
        )
    rows = table
    if len(table) > MAX_ROWS:
        rows = table.take(np.linspace(0, len(table) - 1, MAX_ROWS).round().astype(int))
    with threadpool_limits(1):  # many questions of few rows: threads would only wait for each other
        said = original(rows)
        scale = Scale.of(said, probabilities=original.kind.probabilities)
        edge = edges(original, rows, scale)
        edge_said = None if edge is None else original(edge)
    return _Question(original, rows, said, edge, edge_said, scale, tolerance)


def _best(question: _Question, precision: Precision, work: Path) -> _Attempt:
    """The conversion with the fewest answers that differ; the plainest of equals."""
    if precision == "float64":
        return _attempt(question, "float64", work)
    made = [_attempt(question, "float32", work)]
    if any(made[0].faults) and tools.scalers(question.original.estimator):
        made.append(_attempt(question, "float32, scaled in float64", work))
    if precision == "auto" and all(attempt.faults[0] for attempt in made):
        try:
            made.append(_attempt(question, "float64", work))
        except InvalidModelError:  # not every operator knows float64
            log.debug("no conversion in float64", exc_info=True)
    return min(made, key=lambda attempt: attempt.faults)


def _attempt(question: _Question, arithmetic: Arithmetic, work: Path) -> _Attempt:
    double = arithmetic == "float64"
    kind = question.original.kind
    model = tools.write(
        question.original.estimator,
        question.rows,
        double=double,
        scale_in_double=arithmetic == "float32, scaled in float64",
    )
    given = [value.name for value in model.graph.output]
    graphs.name_outputs(model, dict(zip(given, kind.outputs, strict=False)))
    return _judged(question, arithmetic, model, work)


def _judged(
    question: _Question, arithmetic: Arithmetic, model: onnx.ModelProto, work: Path
) -> _Attempt:
    double = arithmetic == "float64"
    kind = question.original.kind
    path = _save(model, work / "attempt.onnx")
    session = OnnxSession(path, inspect(path).interface)
    try:
        raw = session.run(question.rows.feed(double=double))
    except InvalidInputError as error:
        raise InvalidModelError(
            f"{tools.described(question.original.estimator)} as ONNX fails where the original "
            f"answers: {error.message}",
            cure="put scalers around a calibrated or voting estimator, not into it, or leave out "
            "what its converter does not know",
        ) from error
    said = model_answers(kind, raw)
    on_samples = _compared(question, question.said, said)
    if kind.mirrors and _compared(question, question.said, said.mirrored()).scores < (
        on_samples.scores
    ):
        graphs.mirror(model, kind.outputs[1])
        return _judged(question, arithmetic, model, work)
    graphs.declare_shapes(model, {name: array.shape for name, array in raw.items()})
    on_edges = None
    if question.edge is not None and question.edge_said is not None:
        answers = model_answers(kind, session.run(question.edge.feed(double=double)))
        on_edges = _compared(question, question.edge_said, answers)
    return _Attempt(arithmetic, model, on_samples, on_edges)


def _compared(question: _Question, original: Answers, model: Answers) -> Difference:
    if (
        original.scores is not None
        and model.scores is not None
        and original.scores.shape != model.scores.shape
    ):
        raise InvalidModelError(
            f"the converted model gives scores of shape {model.scores.shape}, "
            f"{tools.described(question.original.estimator)} {original.scores.shape}",
            cure="where it can give probabilities, let it; else convert it another way",
        )
    return compare(original, model, question.scale, tolerance=question.tolerance)


def _refuse(
    attempt: _Attempt, question: _Question, *, max_labels: float, max_scores: float
) -> None:
    found = attempt.samples
    if found.labels <= max_labels * found.rows and found.scores <= max_scores * found.rows:
        return
    raise InvalidModelError(
        f"{tools.described(question.original.estimator)} as ONNX answers otherwise than the "
        f"original, also in {attempt.arithmetic}: {found}",
        cure="hold it against rows that it was not trained on, allow more by tolerance, max_labels "
        "or max_scores, or choose an estimator whose answers do not hang on the last bit",
    )


def _save(model: onnx.ModelProto, path: Path) -> Path:
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error}", cure="check its mode") from error
    return path
