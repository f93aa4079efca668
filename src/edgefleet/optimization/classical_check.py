"""Whether a converted model answers as the original does: on the caller's rows, and on the edge.

The edge: between two rows that are answered differently lies a place where the answer changes. It
is narrowed down until no float32 lies between its two sides, and both are asked. Where a decision
is made by comparing (trees, neighbours), that is where rounding shows.

Rules kept here:

- A label that differs counts, unless the original itself has its two best classes within the
  tolerance: a tie.
- Scores are compared in parts of 1 where they are probabilities, else of their own range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from edgefleet.optimization.classical_table import Table

TOLERANCE = 1e-3
"""By how much a score may lie apart: of a probability, or of the range of other scores."""
MAX_LABELS = 0.005
"""Share of rows whose label may differ."""
MAX_SCORES = 0.02
"""Share of rows whose scores may lie further apart than the tolerance."""

PAIRS = 48  # edges looked for
ROUNDS = 60  # halvings: a float32 has 24 bits of fraction, and some more lead past zero


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of some rows.

    Attributes:
        labels: one a row; None where it is a regressor.
        scores: ``float64[rows, n]``, the higher the likelier: probabilities, scores, distances
            with a minus; predictions of a regressor; None where it has none.
    """

    labels: NDArray[Any] | None
    scores: NDArray[Any] | None

    def mirrored(self) -> Answers:
        """The same with every score's sign turned."""
        return Answers(self.labels, None if self.scores is None else -self.scores)

    def __len__(self) -> int:
        first = self.scores if self.labels is None else self.labels
        return 0 if first is None else len(first)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two models lie apart on some rows.

    Attributes:
        rows: that were asked.
        labels: rows whose label differs, ties left out.
        scores: rows whose scores lie further apart than the tolerance.
        worst: the largest distance of two scores, in parts of 1 (probabilities) or of their range.
    """

    rows: int
    labels: int
    scores: int
    worst: float

    @property
    def none(self) -> bool:
        """Whether every row agrees."""
        return not self.labels and not self.scores

    def __str__(self) -> str:
        return (
            f"{self.labels} of {self.rows} labels differ, {self.scores} rows have scores further "
            f"apart than allowed, the worst by {self.worst:.2g}"
        )


@dataclass(frozen=True, slots=True)
class Scale:
    """What a distance of scores is measured by: 1 for probabilities, else their range."""

    unit: float

    @classmethod
    def of(cls, answers: Answers, *, probabilities: bool) -> Scale:
        """The scale of a model's answers to the caller's rows."""
        import numpy as np

        if probabilities or answers.scores is None:
            return cls(1.0)
        finite = answers.scores[np.isfinite(answers.scores)]
        if not finite.size:
            return cls(1.0)
        return cls(float(np.ptp(finite)) or float(np.abs(finite).max()) or 1.0)


def compare(original: Answers, model: Answers, scale: Scale, *, tolerance: float) -> Difference:
    """How far a model's answers lie from the original's, row by row."""
    import numpy as np

    rows = len(original)
    apart = np.zeros(rows)
    if original.scores is not None and model.scores is not None:
        with np.errstate(invalid="ignore"):
            distance = np.abs(original.scores - model.scores) / scale.unit
        same = original.scores == model.scores  # infinities
        apart = np.where(same, 0.0, np.nan_to_num(distance, nan=np.inf)).max(axis=1)
    labels = np.zeros(rows, dtype=bool)
    if original.labels is not None and model.labels is not None:
        labels = (original.labels != model.labels) & ~_ties(original, scale, tolerance)
    return Difference(
        rows=rows,
        labels=int(labels.sum()),
        scores=int((apart > tolerance).sum()),
        worst=float(apart.max(initial=0.0)),
    )


def _ties(answers: Answers, scale: Scale, tolerance: float) -> NDArray[Any]:
    import numpy as np

    scores = answers.scores
    if scores is None:
        return np.zeros(len(answers), dtype=bool)
    if scores.shape[1] == 1:  # a decision by sign
        close: NDArray[Any] = np.abs(scores[:, 0]) <= tolerance * scale.unit
        return close
    best = np.sort(scores, axis=1)
    tied: NDArray[Any] = best[:, -1] - best[:, -2] <= tolerance * scale.unit
    return tied


def edges(ask: Callable[[Table], Answers], table: Table, scale: Scale) -> Table | None:
    """Rows on both sides of places where the original's answer changes.

    Half of them lie where the label changes, where it has labels; the others at the largest step of
    its scores between two rows of the caller's.

    Returns:
        Up to twice `PAIRS` rows of float32 values; None where no feature can be moved.
    """
    import numpy as np

    floats = table.floats().astype(np.float32)
    usable = np.flatnonzero(np.isfinite(floats).all(axis=1)) if floats.size else np.array([], int)
    if len(usable) < 2:
        return None
    answers = ask(table)
    first, second = _pairs(answers, usable)
    base = table.take(first)
    low, high = floats[first], floats[second]
    at_low, at_high = ask(base.moved(low)), ask(base.moved(high))
    for _ in range(ROUNDS):
        middle = ((low.astype(np.float64) + high) / 2).astype(np.float32)
        if ((middle == low) | (middle == high)).all():
            break
        at_middle = ask(base.moved(middle))
        left = _goes_left(at_low, at_middle, at_high, scale)
        low, high = np.where(left[:, None], low, middle), np.where(left[:, None], middle, high)
        at_low = _chosen(left, at_low, at_middle)
        at_high = _chosen(left, at_middle, at_high)
    both = np.concatenate([np.arange(len(base)), np.arange(len(base))])
    return base.take(both).moved(np.concatenate([low, high]))


def _pairs(answers: Answers, usable: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Two rows for each edge: half of them of different labels, as far as there are such."""
    import numpy as np

    chance = np.random.default_rng(0)
    first, second = (chance.choice(usable, PAIRS * 16) for _ in range(2))
    wanted = first != second
    first, second = first[wanted], second[wanted]
    if answers.labels is not None:
        differ = answers.labels[first] != answers.labels[second]
        order = np.argsort(~differ[: PAIRS * 8], kind="stable")[: PAIRS // 2]
        rest = np.setdiff1d(np.arange(len(first)), order)[: PAIRS // 2]
        chosen = np.concatenate([order, rest])
    else:
        chosen = np.arange(min(PAIRS, len(first)))
    return first[chosen], second[chosen]


def _goes_left(low: Answers, middle: Answers, high: Answers, scale: Scale) -> NDArray[Any]:
    """Which pairs go on in the half from low to middle: where the label, or more score, changes."""
    import numpy as np

    left = np.ones(len(middle), dtype=bool)
    if low.scores is not None and middle.scores is not None and high.scores is not None:
        before = np.abs(middle.scores - low.scores).max(axis=1) / scale.unit
        after = np.abs(high.scores - middle.scores).max(axis=1) / scale.unit
        left = before >= after
    if low.labels is not None and middle.labels is not None and high.labels is not None:
        changes = low.labels != high.labels
        left = np.where(changes, low.labels != middle.labels, left)
    return left


def _chosen(left: NDArray[Any], yes: Answers, no: Answers) -> Answers:
    import numpy as np

    labels = scores = None
    if yes.labels is not None and no.labels is not None:
        labels = np.where(left, yes.labels, no.labels)
    if yes.scores is not None and no.scores is not None:
        scores = np.where(left[:, None], yes.scores, no.scores)
    return Answers(labels, scores)
