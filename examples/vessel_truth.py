"""What the full data of the vessel says of drift and counts, computed without a sketch or a spool.

The same distances as `edgefleet.protocol.drift`, exactly, from every single number; and how far the
verdict of sketches may be from the exact one, by the bounds that module states.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgefleet.protocol.drift import CONFIDENCE, RANK_ERROR, Limits

if TYPE_CHECKING:
    from vessel_cargo import Day

    from edgefleet.protocol.drift import Drift

KS_BOUND = OUTSIDE_BOUND = 2 * RANK_ERROR
PSI_BOUND, PSI_BOUND_SHARE = 0.02, 0.15
JS_BOUND = 0.02

Values = NDArray[np.float32]


class Exact(NamedTuple):
    """One feature held against its reference.

    Attributes:
        numbers: how many were seen; the rest as of `Drift`.
        noise: what KS of so many numbers may be by chance.
    """

    numbers: int
    psi: float
    ks: float
    js: float
    missing: float
    outside: float
    noise: float

    def verdict(self, limits: Limits) -> str:
        """What the rules of `edgefleet.protocol.drift` say of these figures."""
        beyond = (
            self.missing > limits.missing,
            self.outside > limits.outside,
            self.psi > limits.psi_moved,
            self.ks - self.noise > limits.ks_moved,
        )
        if any(beyond):
            return "moved"
        return "watch" if self.psi > limits.psi_watch else "stable"

    def verdicts(self, limits: Limits) -> set[str]:
        """Every verdict that figures within the stated bounds of these may have.

        Sketches add their own error to what counts as noise of KS, so that it may say less by that.
        """
        psi = PSI_BOUND + PSI_BOUND_SHARE * self.psi
        return {
            self._replace(
                psi=self.psi + a * psi,
                ks=self.ks + b * KS_BOUND,
                outside=self.outside + c * OUTSIDE_BOUND,
            ).verdict(limits)
            for a, b, c in product((-1, 0, 1), (-2, 0, 1), (-1, 0, 1))
        }

    def within_bounds(self, found: Drift) -> bool:
        """Whether what sketches gave lies as near as is stated; what is counted, exactly."""
        if found.psi is None or found.ks is None or found.js is None:
            return False
        return (
            found.count == self.numbers
            and math.isclose(found.missing, self.missing, abs_tol=1e-12)
            and abs(found.psi - self.psi) <= PSI_BOUND + PSI_BOUND_SHARE * self.psi
            and abs(found.ks - self.ks) <= KS_BOUND
            and abs(found.js - self.js) <= JS_BOUND
            and abs(found.outside - self.outside) <= OUTSIDE_BOUND
        )


class Reference:
    """A feature as it was before the voyage.

    Args:
        values: of any shape, NaN where one is missing.
    """

    def __init__(self, values: Values) -> None:
        self._sorted, self._missing = _present(values)
        ranks = [math.ceil(self._sorted.size * i / 10) - 1 for i in range(1, 10)]
        self._edges = np.unique(self._sorted[ranks])

    def hold(self, values: Values) -> Exact:
        """Hold other values against it."""
        seen, missing = _present(values)
        p, q = (self._shares(one) for one in (self._sorted, seen))
        floored = np.maximum(p, 1e-4), np.maximum(q, 1e-4)
        low, high = self._sorted[0], self._sorted[-1]
        return Exact(
            numbers=int(seen.size),
            psi=float(np.sum((floored[1] - floored[0]) * np.log(floored[1] / floored[0]))),
            ks=max(_apart(self._sorted, seen, side) for side in (self._sorted, seen)),
            js=_jensen_shannon(p, q),
            missing=missing - self._missing,
            outside=float(np.mean((seen < low) | (seen > high))),
            noise=CONFIDENCE * math.sqrt(1 / self._sorted.size + 1 / seen.size),
        )

    def _shares(self, ordered: Values) -> NDArray[np.float64]:
        below = np.searchsorted(ordered, self._edges, side="left")
        return np.diff(below, prepend=0, append=ordered.size) / ordered.size


def tallies(day: Day) -> Counter[tuple[int, int]]:
    """How many predictions there were of each class and tenth of its score."""
    top = day.scores.argmax(axis=-1)
    score = day.scores.max(axis=-1).astype(np.float64)
    bands = np.minimum((score * 10).astype(int), 9)
    return Counter(zip(top.ravel().tolist(), bands.ravel().tolist(), strict=True))


def _present(values: Values) -> tuple[Values, float]:
    """The numbers in order, and the share that is missing."""
    flat = values.ravel()
    present = np.sort(flat[~np.isnan(flat)])
    return present, 1 - present.size / flat.size


def _apart(one: Values, other: Values, at: Values) -> float:
    """The largest distance of two distribution functions, both given in order, at some points."""
    first, second = (np.searchsorted(v, at, side="right") / v.size for v in (one, other))
    return float(np.abs(first - second).max())


def _jensen_shannon(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    middle = (p + q) / 2
    total = 0.0
    for shares in (p, q):
        some = shares > 0
        total += float(np.sum(shares[some] * np.log2(shares[some] / middle[some])))
    return math.sqrt(max(0.0, total / 2))
