"""What is kept of an answer: a few numbers of each output, and the best class if there is one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.protocol.event import Number, OutputSummary
from edgefleet.protocol.scores import best_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

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
    best = best_of(array)
    if best is None:
        return OutputSummary(name=name, shape=array.shape, values=kept)
    top, score = best
    return OutputSummary(
        name=name,
        shape=array.shape,
        values=kept,
        top=tuple(top.tolist()),
        score=_numbers(score.tolist()),
    )


def _numbers(values: Iterable[float]) -> tuple[Number, ...]:
    return tuple(value if math.isfinite(value) else None for value in values)
