"""Numbers reduced as they come: counts, mean, extremes, quantiles, a histogram, in bounded memory.

Quantiles are exact up to `EXACT` numbers; beyond, a KLL sketch takes over (k = 400: with 99 %
confidence a rank is off by at most 0.68 %).
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from math import ceil, isfinite
from typing import TYPE_CHECKING, Any

from edgefleet.protocol.event import Aggregate
from edgefleet.protocol.sketch import K

if TYPE_CHECKING:
    from edgefleet.protocol.event import Number

EXACT = 4096  # numbers of which each is kept


class Series:
    """One value of one window.

    Args:
        quantiles: ranks to give.
        edges: of a histogram, ascending.
    """

    __slots__ = (
        *("_edges", "_histogram", "_kept", "_quantiles", "_sketch"),
        *("count", "least", "mean", "most"),
    )

    def __init__(self, quantiles: tuple[float, ...] = (), edges: tuple[float, ...] = ()) -> None:
        self.count = 0
        self.mean = 0.0
        self.least = float("inf")
        self.most = float("-inf")
        self._quantiles = quantiles
        self._edges = edges
        self._histogram = [0] * (len(edges) + 1) if edges else []
        self._kept = array("d")
        self._sketch: Any = None

    @property
    def kept(self) -> int:
        """How many numbers are held one by one."""
        return len(self._kept)

    def add(self, value: float) -> None:
        """Take one finite number."""
        self.count += 1
        self.mean += (value - self.mean) / self.count
        self.least = min(self.least, value)
        self.most = max(self.most, value)
        if self._edges:
            self._histogram[bisect_right(self._edges, value)] += 1
        if not self._quantiles:
            return
        if self._sketch is not None:
            self._sketch.update(value)
            return
        self._kept.append(value)
        if len(self._kept) > EXACT:
            self.shrink()

    def shrink(self) -> None:
        """Hold a sketch in place of the numbers."""
        if self._kept:
            from datasketches import kll_doubles_sketch  # noqa: PLC0415 - few windows need it

            self._sketch = kll_doubles_sketch(K)
            for value in self._kept:
                self._sketch.update(value)
            self._kept = array("d")

    def aggregate(self, readings: int) -> Aggregate:
        """What was seen, in so many readings."""
        if not self.count:
            return Aggregate(count=0, missing=readings, histogram=tuple(self._histogram))
        return Aggregate(
            count=self.count,
            missing=readings - self.count,
            mean=_finite(self.mean),
            least=self.least,
            most=self.most,
            quantiles=self._ranks(),
            histogram=tuple(self._histogram),
        )

    def _ranks(self) -> dict[str, Number]:
        if self._sketch is not None:
            found = self._sketch.get_quantiles(list(self._quantiles))
            return {f"{q:g}": float(v) for q, v in zip(self._quantiles, found, strict=True)}
        ordered = sorted(self._kept)
        return {f"{q:g}": ordered[max(0, ceil(q * len(ordered)) - 1)] for q in self._quantiles}


def _finite(value: float) -> Number:
    return value if isfinite(value) else None
