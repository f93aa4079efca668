"""Finds out, by running it, whether a model gains from batches and how large they may be.

A dynamic first dimension promises nothing: a model may mix its rows, or take as long for two rows
as for two runs. So rows that differ are run alone and together, results compared and times taken.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet_runtime.serve.queueing import BatchLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface
    from edgefleet_runtime.engines.base import LoadedModel

GAIN = 0.9  # of the time that a row takes alone: less must remain for batches to be worth it
_CLOSE = 1e-3  # relative and of the largest value; kernels add in another order in batches


def can_batch(interface: Interface) -> bool:
    """Whether all inputs and outputs have a first dimension of any length."""
    tensors = (*interface.inputs, *interface.outputs)
    return bool(interface.inputs) and all(spec.shape[:1] == (-1,) for spec in tensors)


def max_rows(
    model: LoadedModel,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Sequence[str] | None = None,
    limits: BatchLimits | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """How many rows the model should run at once; 1 where batches gain nothing or change results.

    Args:
        model: `can_batch` holds for its interface.
        inputs: of one request; arrays of the same first length.
        outputs: as of `LoadedModel.infer`.
        limits: bounds of the answer.
        clock: seconds.
    """
    limits = limits or BatchLimits()
    ends = clock() + limits.budget_s
    row = {name: array[:1] for name, array in inputs.items()}
    # Differs from the row everywhere, and 0 and 1 are valid wherever numbers are indices.
    other = {name: _other(array) for name, array in row.items()}
    alone = model.probe(row, outputs)
    if not _keeps_rows_apart(model, row, other, outputs, alone):
        return 1
    row_bytes = sum(a.nbytes for a in (*row.values(), *alone.values())) or 1
    most = min(limits.max_rows, limits.max_bytes // row_bytes)
    one_us = _time_us(model, row, outputs, ends, clock)
    allowed_us = limits.latency_us or max(limits.grace_us, limits.stretch * one_us)
    best, rows = 1, 2
    while rows <= most and clock() < ends:
        many = {name: np.repeat(array, rows, axis=0) for name, array in row.items()}
        run_us = _time_us(model, many, outputs, ends, clock)
        if run_us > allowed_us or run_us / rows > one_us * GAIN:
            break
        best, rows = rows, rows * 2
    return best


def _other(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.hasobject:
        return np.where(array == b"", b"0", b"").astype(object)
    zeros: NDArray[Any] = array == 0
    return zeros.astype(array.dtype)


def _keeps_rows_apart(
    model: LoadedModel,
    row: Mapping[str, NDArray[Any]],
    other: Mapping[str, NDArray[Any]],
    outputs: Sequence[str] | None,
    alone: Mapping[str, NDArray[Any]],
) -> bool:
    mixed = {name: np.concatenate([array, other[name], other[name]]) for name, array in row.items()}
    together, second = model.probe(mixed, outputs), model.probe(other, outputs)
    return all(
        array.ndim > 0
        and together[name].shape == (3, *array.shape[1:])
        and array.shape[0] == 1
        and _close(together[name][:1], array)
        and _close(together[name][1:2], second[name])
        and _close(together[name][2:], second[name])
        for name, array in alone.items()
    )


def _close(seen: NDArray[Any], due: NDArray[Any]) -> bool:
    if due.dtype.kind != "f":
        return bool(np.array_equal(seen, due))
    scale = float(np.max(np.abs(due), initial=0.0))
    return bool(np.allclose(seen, due, rtol=_CLOSE, atol=_CLOSE * scale, equal_nan=True))


def _time_us(
    model: LoadedModel,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Sequence[str] | None,
    ends: float,
    clock: Callable[[], float],
) -> float:
    """The shortest of some runs: what a run takes when nothing else disturbs it."""
    best = float("inf")
    for turn in range(12):
        start = clock()
        if turn > 1 and start > ends:
            break
        model.probe(inputs, outputs)
        best = min(best, clock() - start)
    return best * 1e6
