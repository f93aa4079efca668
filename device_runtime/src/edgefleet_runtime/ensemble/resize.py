"""Images in another size; the formulas stand in `edgefleet.protocol.steps.Resize`.

https://onnx.ai/onnx/operators/onnx__Resize.html
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEPT = 64  # pairs of lengths
_EXACT_IN_FP32 = 2  # bytes of an integer


def resize(x: NDArray[Any], first: int, size: tuple[int, int], *, nearest: bool) -> NDArray[Any]:
    """The image with two neighbouring axes brought to other lengths.

    Args:
        x: of any number type, no axis of the two empty.
        first: index of the height's axis; the width's follows.
        size: height and width of the result.
        nearest: take the nearest pixel instead of weighing neighbours.
    """
    if x.shape[first : first + 2] == size:
        return x
    if nearest:
        for axis, length in enumerate(size, first):
            x = np.take(x, _nearest(x.shape[axis], length), axis)
        return x
    kind, narrow = x.dtype, x.dtype.itemsize <= _EXACT_IN_FP32
    wide = np.dtype(np.float32 if narrow or kind == np.float32 else np.float64)
    made: NDArray[Any] = x
    for axis, length in enumerate(size, first):
        if made.shape[axis] != length:
            made = _weighed(made, axis, length, wide)
    if kind.kind == "f":
        return made.astype(kind, copy=False)
    bounds = np.iinfo(kind)
    rounded = np.rint(made, out=made)
    if kind.itemsize > wide.itemsize // 2:  # the largest of these isn't a float
        return _held(rounded, bounds)
    whole: NDArray[Any] = rounded.astype(kind)
    return whole


def _weighed(x: NDArray[Any], axis: int, length: int, wide: np.dtype[Any]) -> NDArray[Any]:
    low, high, weights = _neighbours(x.shape[axis], length)
    made = np.take(x, low, axis).astype(wide)
    beyond = np.take(x, high, axis).astype(wide, copy=False)
    weight = weights.astype(wide).reshape(-1, *(1,) * (x.ndim - 1 - axis))
    # (1 - w) a + w b and not a + w (b - a): equal neighbours give their own number, infinite ones
    # of one sign too.
    made *= 1 - weight
    beyond *= weight
    made += beyond
    return made


def _held(x: NDArray[Any], bounds: np.iinfo[Any]) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):
        made = x.astype(bounds.dtype)
    made[x >= float(bounds.max)] = bounds.max
    return made


@lru_cache(_KEPT)
def _nearest(old: int, new: int) -> NDArray[np.intp]:
    """Which pixel is nearest to each new one: ceil((2i + 1) old / 2 new - 1), in whole numbers."""
    places = -((2 * new - (2 * np.arange(new) + 1) * old) // (2 * new))
    return np.clip(places, 0, old - 1).astype(np.intp)


@lru_cache(_KEPT)
def _neighbours(
    old: int, new: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """The pixels before and behind each new one, and the weight of the one behind."""
    places = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    low = np.floor(places).astype(np.intp)
    return low, np.minimum(low + 1, old - 1), places - low
