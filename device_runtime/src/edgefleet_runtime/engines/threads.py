"""How many threads a model's run should have, found by running it.

Starting and joining threads costs more than a tiny model's whole run, and idle ones that spin take
the processor from whoever serves: on two cores a second thread divided a perceptron's throughput by
2.5. What takes longer than `TINY_RUN_US` gets as many threads as the engine likes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.tensors import dtype_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface
    from edgefleet_runtime.engines.base import LoadedModel

TINY_RUN_US = 200.0
MAX_TINY_BYTES = 1 << 20  # of a file that is worth the trial; larger ones don't run so briefly
_MAX_INPUT_BYTES = 1 << 20
_RUNS = 3


def may_be_tiny(entry: Path) -> bool:
    """Whether the model in this file might run in less than `TINY_RUN_US`."""
    return entry.stat().st_size <= MAX_TINY_BYTES


def is_tiny(model: LoadedModel) -> bool:
    """Whether zeros, one where a dimension is open, ran through the model within `TINY_RUN_US`."""
    inputs = _zeros(model.interface)
    if inputs is None:
        return False
    best_us = float("inf")
    try:
        for _ in range(_RUNS):
            start = time.perf_counter()
            model.infer(inputs)
            best_us = min(best_us, (time.perf_counter() - start) * 1e6)
    except EdgeFleetError:
        return False  # zeros are no input for it
    return best_us < TINY_RUN_US


def _zeros(interface: Interface) -> dict[str, NDArray[Any]] | None:
    inputs: dict[str, NDArray[Any]] = {}
    for spec in interface.inputs:
        shape = [max(length, 1) for length in spec.shape]
        if spec.datatype == "BYTES" or np.prod(shape, dtype=float) * 8 > _MAX_INPUT_BYTES:
            return None
        inputs[spec.name] = np.zeros(shape, dtype_of(spec.datatype))
    return inputs
