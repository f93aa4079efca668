"""Which tensors a step gives for which it is given, worked out before anything runs.

An empty shape is that of a scalar, or of a tensor whose rank its model doesn't tell: what depends
on the rank is then left to the run.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

import msgspec

from edgefleet.errors import InvalidModelError
from edgefleet.protocol import steps as s
from edgefleet.protocol.bundle import TensorSpec

if TYPE_CHECKING:
    from edgefleet.protocol.bundle import Datatype

    Shape = tuple[int, ...]

_FLOATS = frozenset({"FP16", "FP32", "FP64"})
_WHOLE = frozenset({"UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"})
_NUMBERS = _FLOATS | _WHOLE
_CASTABLE = _NUMBERS | {"BOOL"}
ANY = -1


def fits(given: TensorSpec, taken: TensorSpec) -> bool:
    """Whether a tensor may be what is taken: one datatype, lengths equal or either of them any."""
    if given.datatype != taken.datatype:
        return False
    if not given.shape or not taken.shape:
        return True
    return len(given.shape) == len(taken.shape) and all(
        ANY in pair or pair[0] == pair[1] for pair in zip(given.shape, taken.shape, strict=True)
    )


def told(spec: TensorSpec) -> str:
    """A tensor's datatype and shape for people."""
    return f"{spec.datatype}{list(spec.shape)}"


def results_of(step: s.Operation, given: TensorSpec) -> tuple[TensorSpec, ...]:
    """What a step gives for such a tensor, in the order of its results' names.

    Raises:
        InvalidModelError: it takes no such tensor.
    """
    datatype, shape = _result(step, given)
    if len(shape) > s.MAX_RANK:
        raise InvalidModelError(f"it gives {len(shape)} axes, {s.MAX_RANK} are allowed")
    made = TensorSpec(name="", datatype=datatype, shape=shape)
    if isinstance(step, s.TopK):
        return made, msgspec.structs.replace(made, datatype="INT64")
    return (made,)


def _result(  # noqa: PLR0911, PLR0912, C901 - one case a step
    step: s.Operation, given: TensorSpec
) -> tuple[Datatype, Shape]:
    kind, shape = given.datatype, given.shape
    match step:
        case s.Cast():
            _takes(given, _CASTABLE)
            if step.datatype not in _CASTABLE:
                raise InvalidModelError(f"nothing can be cast to {step.datatype}")
            return step.datatype, shape
        case s.Rescale():
            _takes(given, _CASTABLE)
            return _floating(kind), shape
        case s.Normalize():
            _takes(given, _CASTABLE)
            return _floating(kind), _normalized(step, shape)
        case s.Transpose():
            if shape and len(shape) != len(step.axes):
                raise InvalidModelError(f"it orders {len(step.axes)} axes, not {len(shape)}")
            return kind, tuple(shape[axis] for axis in step.axes) if shape else ()
        case s.Reshape():
            return kind, _reshaped(step, shape)
        case s.ExpandDims():
            if not shape:
                return kind, ()
            axis = _axis(step.axis, len(shape) + 1)
            return kind, (*shape[:axis], 1, *shape[axis:])
        case s.Squeeze():
            return kind, _squeezed(step.axis, shape)
        case s.Resize():
            _takes(given, _NUMBERS)
            return kind, _resized(step, shape)
        case s.Clip():
            _takes(given, _NUMBERS)
            return kind, shape
        case s.Threshold():
            _takes(given, _NUMBERS)
            return "BOOL", shape
        case s.Softmax():
            _takes(given, _NUMBERS)
            _with(step.axis, shape, ANY)
            return _floating(kind), shape
        case s.ArgMax():
            _takes(given, _NUMBERS)
            kept = _with(step.axis, shape, 1)
            return "INT64", kept if step.keep else _squeezed(step.axis, kept)
        case s.TopK():
            _takes(given, _NUMBERS)
            if shape and 0 <= shape[_axis(step.axis, len(shape))] < step.k:
                raise InvalidModelError(f"axis {step.axis} of {told(given)} is below {step.k}")
            return kind, _with(step.axis, shape, step.k)
        case s.Label():
            _takes(given, _WHOLE)
            return "BYTES", shape
        case _:
            assert_never(step)


def _takes(given: TensorSpec, datatypes: frozenset[str]) -> None:
    if given.datatype not in datatypes:
        raise InvalidModelError(
            f"it takes {', '.join(sorted(datatypes))}, not {given.datatype}",
            cure="put a cast step before it",
        )


def _floating(kind: Datatype) -> Datatype:
    return kind if kind in _FLOATS else "FP32"


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise InvalidModelError(f"there is no axis {axis} among {rank}")
    return axis % rank


def _with(axis: int, shape: Shape, length: int) -> Shape:
    """The shape with another length in one place."""
    if not shape:
        return ()
    place = _axis(axis, len(shape))
    return (*shape[:place], length, *shape[place + 1 :])


def _squeezed(axis: int, shape: Shape) -> Shape:
    if not shape:
        return ()
    place = _axis(axis, len(shape))
    if shape[place] not in {1, ANY}:
        raise InvalidModelError(f"axis {axis} of {list(shape)} has a length other than 1")
    return (*shape[:place], *shape[place + 1 :])


def _normalized(step: s.Normalize, shape: Shape) -> Shape:
    channels = max(len(step.mean), len(step.std))
    if shape and channels > 1 and shape[_axis(step.axis, len(shape))] not in {channels, ANY}:
        raise InvalidModelError(
            f"it has figures for {channels} channels, axis {step.axis} of {list(shape)} has others"
        )
    return shape


def _reshaped(step: s.Reshape, shape: Shape) -> Shape:
    if not shape or ANY in shape:
        return step.shape
    count, fixed = math.prod(shape), math.prod(n for n in step.shape if n != ANY)
    if ANY not in step.shape:
        if count != fixed:
            raise InvalidModelError(f"{list(shape)} can't take the shape {list(step.shape)}")
        return step.shape
    if not fixed or count % fixed:
        raise InvalidModelError(f"{list(shape)} can't take the shape {list(step.shape)}")
    return tuple(count // fixed if length == ANY else length for length in step.shape)


def _resized(step: s.Resize, shape: Shape) -> Shape:
    if not shape:
        return ()
    rank = 3 if step.layout == "HWC" else 2
    if len(shape) < rank:
        raise InvalidModelError(f"{list(shape)} is no {step.layout} image")
    place = len(shape) - rank
    return (*shape[:place], step.height, step.width, *shape[place + 2 :])
