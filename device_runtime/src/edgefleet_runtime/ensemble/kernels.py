"""What each step of `edgefleet.protocol.steps` computes, in numpy; their definitions stand there.

Rules kept here:

- A kernel never writes to what it is given, and gives a view of it where no number changes.
- Nothing is broadcast by accident: lengths that must agree are compared.
- The size of what a kernel makes is bounded (`MAX_ELEMENTS`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np

from edgefleet.errors import InferenceError, InvalidInputError, LimitExceededError
from edgefleet.protocol import steps as s
from edgefleet.protocol.tensors import dtype_of
from edgefleet_runtime.ensemble.resize import resize

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Kernel = Callable[[Array], tuple[Array, ...]]
    """Gives the results of one step, in the order of its names."""

MAX_ELEMENTS = 1 << 28


def kernel_of(step: s.Operation) -> Kernel:
    """What computes a step; may be called by several threads.

    Raises:
        InvalidInputError: a `Label` step has no labels.
    """
    match step:
        case s.TopK():
            return partial(_top_k, k=step.k, axis=step.axis)
        case s.Label():
            return _only(partial(_label, names=_names(step.labels)))
        case _:
            return _only(_one_of(step))


def _one_of(step: s.Operation) -> Callable[[Array], Array]:  # noqa: PLR0911, PLR0912, C901 - one line a step
    match step:
        case s.Cast():
            return partial(cast, dtype=dtype_of(step.datatype))
        case s.Rescale():
            return partial(_rescale, scale=step.scale, offset=step.offset)
        case s.Normalize():
            return partial(_normalize, mean=step.mean, std=step.std, axis=step.axis)
        case s.Transpose():
            return lambda x: x.transpose(step.axes)
        case s.Reshape():
            return lambda x: x.reshape(step.shape)
        case s.ExpandDims():
            return lambda x: np.expand_dims(x, step.axis)
        case s.Squeeze():
            return lambda x: np.squeeze(x, step.axis)
        case s.Resize():
            return partial(_resize, step=step)
        case s.Clip():
            return partial(_clip, low=step.min, high=step.max)
        case s.Threshold():
            return lambda x: np.greater_equal(x, float(step.at))
        case s.Softmax():
            return partial(_softmax, axis=step.axis)
        case s.ArgMax():
            return lambda x: np.argmax(x, axis=step.axis, keepdims=step.keep).astype(np.int64)
        case s.TopK() | s.Label():
            raise TypeError(step)
        case _:
            assert_never(step)


def _only(compute: Callable[[Array], Array]) -> Kernel:
    # numpy gives scalars for arrays without axes, which clients of a model never get.
    return lambda x: (np.asarray(compute(x)),)


def cast(x: Array, dtype: np.dtype[Any]) -> Array:
    """The same numbers in another type, as `edgefleet.protocol.steps.Cast` defines it."""
    kinds = x.dtype.kind, dtype.kind
    if kinds[1] == "b" or kinds[0] == "b" or np.can_cast(x.dtype, dtype):
        return x.astype(dtype, copy=False)
    if kinds[1] == "f":
        with np.errstate(over="ignore"):  # infinite, as IEEE 754 has it
            return x.astype(dtype)
    bounds = np.iinfo(dtype)
    if kinds[0] in "iu":
        own = np.iinfo(x.dtype)
        return np.clip(x, max(own.min, bounds.min), min(own.max, bounds.max)).astype(dtype)
    with np.errstate(invalid="ignore", over="ignore"):  # over: FP16 has no 2**31
        cut = x.astype(dtype)
        # 2**63 - 1 isn't a float: what is as large as the next one that is must be held, too.
        cut[x >= float(bounds.max)] = bounds.max
        cut[x <= float(bounds.min)] = bounds.min
    cut[np.isnan(x)] = 0
    return cut


def _floats(x: Array) -> Array:
    """A copy in the type that `edgefleet.protocol.steps.Rescale` computes in."""
    return x.astype(x.dtype if x.dtype.kind == "f" else np.float32)


def _rescale(x: Array, scale: float, offset: float) -> Array:
    made = _floats(x)
    made *= made.dtype.type(scale)
    if offset:
        made += made.dtype.type(offset)
    return made


def _normalize(x: Array, mean: tuple[float, ...], std: tuple[float, ...], axis: int) -> Array:
    channels = x.shape[axis]
    for figures in (mean, std):
        if len(figures) not in {1, channels}:
            raise InvalidInputError(
                f"axis {axis} of shape {list(x.shape)} has {channels} channels, the step has "
                f"figures for {len(figures)}"
            )
    made = _floats(x)
    behind = (1,) * (x.ndim - 1 - axis % x.ndim)
    made -= np.asarray(mean, made.dtype).reshape(-1, *behind)
    made /= np.asarray(std, made.dtype).reshape(-1, *behind)
    return made


def _resize(x: Array, step: s.Resize) -> Array:
    rank = 3 if step.layout == "HWC" else 2
    if x.ndim < rank:
        raise InvalidInputError(f"shape {list(x.shape)} is no {step.layout} image")
    first = x.ndim - rank
    area = x.shape[first] * x.shape[first + 1]
    if not area:
        raise InvalidInputError(f"an image of shape {list(x.shape)} has no pixels")
    if x.size // area * step.height * step.width > MAX_ELEMENTS:
        raise LimitExceededError(
            f"shape {list(x.shape)} resized to {step.height} x {step.width} has more than "
            f"{MAX_ELEMENTS} elements"
        )
    return resize(x, first, (step.height, step.width), nearest=step.mode == "nearest")


def _clip(x: Array, low: float | None, high: float | None) -> Array:
    if x.dtype.kind == "f":
        kept = x if low is None else np.maximum(x, x.dtype.type(low))
        return kept if high is None else np.minimum(kept, x.dtype.type(high))
    bounds = np.iinfo(x.dtype)
    least = bounds.min if low is None else max(bounds.min, int(np.ceil(low)))
    most = bounds.max if high is None else min(bounds.max, int(np.floor(high)))
    if least > most:
        raise InferenceError(f"no {x.dtype} lies between {low} and {high}")
    return np.clip(x, least, most)


def _softmax(x: Array, axis: int) -> Array:
    if not x.shape[axis]:
        raise InvalidInputError(f"axis {axis} of shape {list(x.shape)} is empty")
    made = _floats(x)
    made -= made.max(axis=axis, keepdims=True)
    np.exp(made, out=made)
    made /= made.sum(axis=axis, keepdims=True)
    return made


def _top_k(x: Array, k: int, axis: int) -> tuple[Array, ...]:
    length = x.shape[axis]
    if k > length:
        raise InvalidInputError(f"axis {axis} of shape {list(x.shape)} has fewer than {k} numbers")
    # Turned round before and after, because a stable sort keeps equal numbers in their order.
    order = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    indices = length - 1 - np.take(order, np.arange(k), axis)
    return np.take_along_axis(x, indices, axis), indices.astype(np.int64)


def _names(labels: tuple[str, ...]) -> NDArray[np.object_]:
    if not labels:
        raise InvalidInputError("step label has no labels", cure="give it labels, or the bundle")
    names = np.empty(len(labels), object)
    names[:] = [label.encode() for label in labels]
    return names


def _label(x: Array, names: NDArray[np.object_]) -> Array:
    wrong = (x < 0) | (x >= len(names))
    if wrong.any():
        raise InferenceError(
            f"class {x[wrong].reshape(-1)[0]} has no label, there are {len(names)}",
            cure="correct the labels of the step or the bundle",
        )
    made = np.empty(x.shape, object)
    made[...] = names[x]
    return made
