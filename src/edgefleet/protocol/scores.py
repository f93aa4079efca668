"""Scores: which outputs hold them, and what the best class is. Device and SDK share this rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_ROWS = 64  # score vectors of one output; with more it is an image, not classes


def best_of(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """The best class of each score vector and its score as float64, flat; None where it holds none.

    An output may be one score a class where it has floats, at least two along the last axis, and
    at most `MAX_ROWS` such vectors.
    """
    if array.dtype.kind != "f" or array.ndim < 1 or array.shape[-1] < 2:
        return None
    if not 0 < array.size // array.shape[-1] <= MAX_ROWS:
        return None
    rows = array.reshape(-1, array.shape[-1])
    top = rows.argmax(axis=-1)
    score = rows[range(len(rows)), top].astype("float64")
    return top, score
