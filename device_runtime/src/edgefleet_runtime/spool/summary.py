"""What is kept of an answer: a few numbers of each output, and the best class if there is one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.protocol.event import Number, OutputSummary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

MAX_ROWS = 64  # score vectors of one output; with more it is an image, not classes
_NUMBERS = "biuf"  # numpy's kinds of booleans, integers and floats


def summarize(outputs: Mapping[str, NDArray[Any]], values: int) -> tuple[OutputSummary, ...]:
    """Summaries of a request's outputs.

    Args:
        outputs: by name.
        values: most elements kept of each; with 0, no scores are kept either. Of outputs that
            aren't numbers only the shape is kept.
    """
    return tuple(_summarize(name, array, values) for name, array in outputs.items())


def _summarize(name: str, array: NDArray[Any], values: int) -> OutputSummary:
    if not values or array.dtype.kind not in _NUMBERS:
        return OutputSummary(name=name, shape=array.shape)
    kept = _numbers(array.ravel()[:values].astype(np.float64).tolist())
    if not _holds_scores(array):
        return OutputSummary(name=name, shape=array.shape, values=kept)
    rows = array.reshape(-1, array.shape[-1])
    best = rows.argmax(axis=-1)
    highest = np.take_along_axis(rows, best[:, None], axis=-1)[:, 0].astype(np.float64)
    return OutputSummary(
        name=name,
        shape=array.shape,
        values=kept,
        top=tuple(best.tolist()),
        score=_numbers(highest.tolist()),
    )


def _numbers(values: Iterable[float]) -> tuple[Number, ...]:
    return tuple(value if math.isfinite(value) else None for value in values)


def _holds_scores(array: NDArray[Any]) -> bool:
    """Whether an output may be one score a class: floats, at least two along the last axis."""
    if array.dtype.kind != "f" or array.ndim < 1 or array.shape[-1] < 2:
        return False
    rows: int = array.size // array.shape[-1]
    return 0 < rows <= MAX_ROWS
