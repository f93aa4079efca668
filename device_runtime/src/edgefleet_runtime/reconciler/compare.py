"""How two models' answers to one request differ: pure, over arrays."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


class Difference(msgspec.Struct, frozen=True):
    """One comparison.

    Attributes:
        results: rows whose top class could be compared.
        agreeing: those of them that have the same one.
        max_abs: largest absolute difference; infinite where shapes differ or NaN stands for a
            number.
    """

    results: int
    agreeing: int
    max_abs: float


def compare(due: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> Difference:
    """Hold ``got`` against ``due``, output by output of ``due``.

    Scores along a last axis of two or more have a top class; so has each element that isn't a
    float, itself.
    """
    results, agreeing, worst = 0, 0, 0.0
    for name, left in due.items():
        right = got.get(name)
        if right is None or right.shape != left.shape:
            return Difference(1, 0, math.inf)
        if left.dtype.kind == "f":
            if left.ndim and left.shape[-1] > 1:
                same = left.argmax(-1) == right.argmax(-1)
                results, agreeing = results + same.size, agreeing + int(same.sum())
        else:
            same = np.asarray(left == right)
            results, agreeing = results + same.size, agreeing + int(same.sum())
        if left.dtype.kind in "fiu" and right.dtype.kind in "fiu":
            worst = max(worst, _apart(left, right))
    return Difference(results, agreeing, worst)


def _apart(left: NDArray[Any], right: NDArray[Any]) -> float:
    equal = (left == right) | ((left != left) & (right != right))  # noqa: PLR0124 - NaN
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(left.astype(np.float64) - right.astype(np.float64))
    worst = float(np.where(equal, 0.0, apart).max(initial=0.0))
    return math.inf if math.isnan(worst) else worst
