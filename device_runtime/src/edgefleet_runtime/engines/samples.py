"""Inputs for a run that nobody asked for: to measure a model, or to have its engine built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.tensors import dtype_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface, TensorSpec

MAX_ELEMENTS = 1 << 28  # of one input; a shape by mistake must not take the machine down
SEED = 20261121


def sample_inputs(
    interface: Interface, *, batch: int = 1, shapes: Mapping[str, Sequence[int]] | None = None
) -> dict[str, NDArray[Any]]:
    """Inputs for a run: standard normal numbers, and whole numbers of 0 and 1, always the same.

    Args:
        interface: of the model.
        batch: for a first length that is free; other free lengths become 1.
        shapes: for inputs whose shape is given, without regard to ``batch``.

    Raises:
        InvalidInputError: a shape is for no input, or too large.
    """
    given = dict(shapes or {})
    unknown = given.keys() - {spec.name for spec in interface.inputs}
    if unknown:
        raise InvalidInputError(f"the model has no input {', '.join(map(repr, sorted(unknown)))}")
    chance = np.random.default_rng(SEED)
    return {
        spec.name: _sample(spec, tuple(given.get(spec.name, _filled(spec, batch))), chance)
        for spec in interface.inputs
    }


def _filled(spec: TensorSpec, batch: int) -> tuple[int, ...]:
    return tuple(
        length if length >= 0 else (batch if axis == 0 else 1)
        for axis, length in enumerate(spec.shape)
    )


def _sample(spec: TensorSpec, shape: tuple[int, ...], chance: np.random.Generator) -> NDArray[Any]:
    count = 1
    for length in shape:
        count *= length
    if count > MAX_ELEMENTS or any(length < 0 for length in shape):
        raise InvalidInputError(
            f"input {spec.name!r} of shape {list(shape)} is too large to measure with",
            cure=f"give at most {MAX_ELEMENTS} elements",
        )
    if spec.datatype == "BYTES":
        return np.full(shape, "text", dtype=object)
    dtype = dtype_of(spec.datatype)
    if dtype.kind == "f":
        return chance.standard_normal(shape).astype(dtype)
    return chance.integers(0, 2, shape).astype(dtype)
