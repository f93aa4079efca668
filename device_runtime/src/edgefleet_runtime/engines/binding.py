"""ONNX Runtime with fixed inputs and outputs: nothing is copied, checked or allocated in a run.

Rules kept here:

- Everything is checked when it is bound, because a run believes it: dtype, shape, contiguity,
  writability, device, and that no output lies on another tensor.
- A bound model holds on to the tensors; whose memory they are can't be freed under a run.
- One run at a time: the tensors are shared by all runs.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import InferenceError, InvalidInputError
from edgefleet.protocol.tensors import datatype_of
from edgefleet_runtime.engines.base import Bound
from edgefleet_runtime.engines.device_memory import DeviceTensor, tensor_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.engines.feed import FeedCheck

    Tensor = NDArray[Any] | DeviceTensor

HOST = "cpu"
GPU = "cuda"


class OnnxBinding(Bound):
    """A session with fixed tensors.

    Args:
        session: of ONNX Runtime.
        inputs: checked (`checked_inputs`).
        outputs: likewise (`checked_outputs`).
        memory: ONNX Runtime's name for the memory that `DeviceTensor` lie in.
        failed: makes an error of what a run raised.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - onnxruntime has no types
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
        *,
        memory: str,
        failed: Callable[[Exception], Exception],
    ) -> None:
        binding = session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_input(name, *_place(tensor, memory))
        for name, tensor in outputs.items():
            binding.bind_output(name, *_place(tensor, memory))
        self.inputs = inputs
        self.outputs = outputs
        self._failed = failed
        # Its wrapper's checks cost as much as a tenth of a tiny model's run.
        self._binding: Any = binding._iobinding  # noqa: SLF001 - `run_with_iobinding` does the same
        self._run: Callable[[Any, None], None] | None = session._sess.run_with_iobinding  # noqa: SLF001
        self._lock = threading.Lock()

    def run(self) -> Mapping[str, Tensor]:
        with self._lock:
            if self._run is None:
                raise InferenceError("the bound model is closed")
            try:
                self._run(self._binding, None)
            except Exception as error:  # its exceptions have no common base
                raise self._failed(error) from error
        return self.outputs

    def close(self) -> None:
        with self._lock:
            self._run = self._binding = None
            self.inputs, self.outputs = {}, {}


def run_on_device(
    session: Any,  # noqa: ANN401 - onnxruntime has no types
    inputs: Mapping[str, Tensor],
    names: Sequence[str],
    stay: Collection[str],
    *,
    dtypes: Mapping[str, np.dtype[Any]],
    memory: str,
    device: int,
) -> dict[str, Tensor]:
    """One run with inputs and outputs on a GPU.

    Args:
        session: of ONNX Runtime.
        inputs: checked.
        names: outputs wanted, in this order.
        stay: those of them to leave on the GPU.
        dtypes: of the outputs.
        memory: ONNX Runtime's name for its memory.
        device: its number.
    """
    binding = session.io_binding()
    whole: list[Any] = []  # bound by address: they must live until the run is over
    for name, given in inputs.items():
        tensor = given if isinstance(given, DeviceTensor) else np.asarray(given, order="C")
        whole.append(tensor)
        binding.bind_input(name, *_place(tensor, memory))
    for name in names:
        binding.bind_output(name, *((memory, device) if name in stay else (HOST,)))
    session.run_with_iobinding(binding)
    found: dict[str, Tensor] = {}
    for name, value in zip(names, binding.get_outputs(), strict=True):
        if name not in stay:
            found[name] = value.numpy()
            continue
        found[name] = DeviceTensor(
            value.data_ptr(),
            device=device,
            dtype=dtypes[name],
            shape=tuple(value.shape()),
            keeper=value,
        )
    return found


def checked_inputs(
    check: FeedCheck, given: Mapping[str, Any], device: int | None
) -> dict[str, Tensor]:
    """The inputs of a binding.

    Raises:
        InvalidInputError: one is missing, unknown, doesn't fit the model, or can't be bound.
    """
    tensors = {name: tensor_of(tensor) for name, tensor in given.items()}
    check.feed(tensors)  # type: ignore[arg-type]  # it looks at dtype and shape alone
    for name, tensor in tensors.items():
        _check_place(f"input {name!r}", tensor, device)
    return tensors


def checked_outputs(
    given: Mapping[str, Any],
    shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]],
    inputs: Mapping[str, Tensor],
    device: int | None,
) -> dict[str, Tensor]:
    """The outputs of a binding.

    Args:
        given: tensors to write.
        shapes: dtype and lengths by name, -1 for any.
        inputs: on which no output may lie.
        device: of the model.

    Raises:
        InvalidInputError: one doesn't fit the model, or can't be bound.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in ((name, tensor_of(tensor)) for name, tensor in given.items()):
        where = f"output {name!r}"
        dtype, shape = shapes[name]
        if tensor.dtype != dtype:
            seen = datatype_of(tensor.dtype)
            raise InvalidInputError(f"{where} gives {datatype_of(dtype)}, not {seen}")
        # A model that doesn't tell an output's rank looks like one that gives a scalar.
        if shape and (
            len(shape) != len(tensor.shape)
            or any(due not in {-1, seen} for due, seen in zip(shape, tensor.shape, strict=True))
        ):
            raise InvalidInputError(
                f"{where} gives shape {list(shape)}, not {list(tensor.shape)}",
                cure="-1 stands for any length",
            )
        _check_place(where, tensor, device)
        if not (tensor.writable if isinstance(tensor, DeviceTensor) else tensor.flags.writeable):
            raise InvalidInputError(f"{where} is read-only", cure="give an array of your own")
        for other, taken in (*inputs.items(), *tensors.items()):
            if _overlap(tensor, taken):
                raise InvalidInputError(f"{where} lies on {other!r}", cure="give it its own memory")
        tensors[name] = tensor
    return tensors


def _check_place(where: str, tensor: Tensor, device: int | None) -> None:
    if isinstance(tensor, DeviceTensor):
        if tensor.device != device:
            there = "on the host" if device is None else f"on GPU {device}"
            raise InvalidInputError(
                f"{where} is on GPU {tensor.device}, the model runs {there}",
                cure="copy it, or open the model with providers=('CUDAExecutionProvider',)",
            )
    elif tensor.dtype.hasobject:
        raise InvalidInputError(f"{where} is text, which has no fixed place", cure="call infer()")
    elif not tensor.flags.c_contiguous:
        raise InvalidInputError(
            f"{where} has gaps, or isn't in C order", cure="make it numpy.ascontiguousarray(…)"
        )
    elif not tensor.flags.aligned:
        raise InvalidInputError(f"{where} isn't aligned", cure="copy it once: array.copy()")


def _overlap(one: Tensor, other: Tensor) -> bool:
    if isinstance(one, DeviceTensor) or isinstance(other, DeviceTensor):
        return (
            isinstance(one, DeviceTensor)
            and isinstance(other, DeviceTensor)
            and one.device == other.device
            and one.pointer < other.pointer + other.nbytes
            and other.pointer < one.pointer + one.nbytes
        )
    return bool(np.may_share_memory(one, other))


def _place(tensor: Tensor, memory: str) -> tuple[Any, ...]:
    if isinstance(tensor, DeviceTensor):
        return memory, tensor.device, tensor.dtype.type, tensor.shape, tensor.pointer
    return HOST, 0, tensor.dtype.type, tensor.shape, tensor.ctypes.data
