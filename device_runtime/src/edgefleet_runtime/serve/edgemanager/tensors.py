"""Tensors of the agent's messages as arrays, and back.

Rules kept here:

- A type that the agent's API can't say (BOOL, INT8, BYTES, …) is never passed off as another one: a
  model with such a tensor is described without tensors, and refused to predict.
- Clients may send back a shape as they were told it: one length of -1 is worked out from the data.
- All tensors of a message together stay within one limit, wherever their bytes lie.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError, LimitExceededError
from edgefleet.protocol.inference_header import MAX_NAME_CHARACTERS, MAX_TENSORS
from edgefleet.protocol.tensors import datatype_of, dtype_of, from_bytes, to_bytes
from edgefleet_runtime.serve.edgemanager import agent_pb2 as pb
from edgefleet_runtime.serve.edgemanager.sysv import read_segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface, TensorSpec

_TYPES: dict[str, pb.DataType] = {
    "UINT8": pb.UINT8, "INT16": pb.INT16, "INT32": pb.INT32, "INT64": pb.INT64,
    "FP16": pb.FLOAT16, "FP32": pb.FLOAT32, "FP64": pb.FLOAT64,
}  # fmt: skip
_DATATYPES = {number: name for name, number in _TYPES.items()}
_ELSEWHERE = "use Open Inference Protocol, which has it"


class Allowance:
    """What the tensors of one message may still take, in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.left = max_bytes

    def spend(self, size: int) -> None:
        """Take ``size`` bytes off.

        Raises:
            LimitExceededError: so many aren't left.
        """
        if size > self.left:
            raise LimitExceededError(
                f"the tensors of this message are too large: {size} bytes, {self.left} left"
            )
        self.left -= size


def describe(interface: Interface, *, name: str, url: str) -> pb.Model:
    """A model as clients see it; without tensors where the API has no word for one of them."""
    model = pb.Model(name=name, url=url)
    specs = (*interface.inputs, *interface.outputs)
    if all(spec.datatype in _TYPES for spec in specs):
        model.input_tensor_metadatas.extend(map(_metadata, interface.inputs))
        model.output_tensor_metadatas.extend(map(_metadata, interface.outputs))
    return model


def inputs_of(
    interface: Interface, tensors: Sequence[pb.Tensor], allowance: Allowance
) -> dict[str, NDArray[Any]]:
    """A model's inputs by name; read-only.

    Raises:
        EdgeFleetError: one is unknown, missing its data or of another type than the model's.
    """
    _check_count(tensors)
    specs = {spec.name: spec for spec in interface.inputs}
    found: dict[str, NDArray[Any]] = {}
    for tensor in tensors:
        name = tensor.tensor_metadata.name
        if not name and len(specs) == len(tensors) == 1:
            (name,) = specs
        spec = specs.get(name)
        if spec is None or name in found:
            raise InvalidInputError(
                f"the model has no input {name[:MAX_NAME_CHARACTERS]!r}, or it is here twice",
                cure=f"its inputs are {', '.join(specs)}",
            )
        found[name] = _input(tensor, spec, allowance)
    return found


def array_of(tensor: pb.Tensor, allowance: Allowance) -> NDArray[Any]:
    """A tensor that describes itself; read-only.

    Raises:
        EdgeFleetError: it doesn't, or its data doesn't fit.
    """
    metadata = tensor.tensor_metadata
    if not metadata.name or len(metadata.name) > MAX_NAME_CHARACTERS:
        raise InvalidInputError(f"a tensor needs a name of 1 to {MAX_NAME_CHARACTERS} characters")
    return _array(tensor, metadata.name, _datatype(tensor), tuple(metadata.shape), allowance)


def tensors_of(outputs: Mapping[str, NDArray[Any]]) -> Iterable[pb.Tensor]:
    """A model's outputs as they are sent back: always as bytes, as AWS's agent does.

    Raises:
        InvalidInputError: the API has no word for the type of one.
    """
    for name, array in outputs.items():
        datatype = datatype_of(array.dtype)
        if datatype not in _TYPES:
            raise InvalidInputError(
                f"output {name!r} of {datatype} can't be said in this API", cure=_ELSEWHERE
            )
        metadata = pb.TensorMetadata(name=name, data_type=_TYPES[datatype], shape=array.shape)
        yield pb.Tensor(tensor_metadata=metadata, byte_data=bytes(to_bytes(array, name=name)))


def data_of(
    message: pb.Tensor | pb.AuxilaryData, size: int | None, allowance: Allowance, *, what: str
) -> bytes:
    """The bytes of a message, from itself or from shared memory.

    Args:
        message: has ``byte_data`` or a handle.
        size: how many they should be; None if only the message says.
        allowance: what they may take.
        what: is meant, for errors.

    Raises:
        EdgeFleetError: there are none, too many, or they can't be reached.
    """
    if message.WhichOneof("data") == "byte_data":
        allowance.spend(len(message.byte_data))
        data: bytes = message.byte_data
        return data
    if message.WhichOneof("data") is None:
        raise InvalidInputError(f"{what} has no data", cure="give byte_data or a handle")
    handle = message.shared_memory_handle
    # AWS's own example clients leave the size out: then it is the tensor's.
    wanted = handle.size or size
    if wanted is None:
        raise InvalidInputError(f"the handle of {what} has no size")
    allowance.spend(wanted)
    return read_segment(handle.segment_id, handle.offset, wanted, max_bytes=wanted + allowance.left)


def check_parts(parts: Sequence[object], limit: int) -> None:
    """Refuse a message of too many parts.

    Raises:
        LimitExceededError: there are more than ``limit``.
    """
    if len(parts) > limit:
        raise LimitExceededError(f"{len(parts)} tensors are too many, {limit} are allowed")


def _check_count(tensors: Sequence[pb.Tensor]) -> None:
    check_parts(tensors, MAX_TENSORS)


def _metadata(spec: TensorSpec) -> pb.TensorMetadata:
    return pb.TensorMetadata(name=spec.name, data_type=_TYPES[spec.datatype], shape=spec.shape)


def _datatype(tensor: pb.Tensor) -> str:
    number = tensor.tensor_metadata.data_type
    if number not in _DATATYPES:
        raise InvalidInputError(f"no such data_type: {number}")
    return _DATATYPES[number]


def _input(tensor: pb.Tensor, spec: TensorSpec, allowance: Allowance) -> NDArray[Any]:
    if spec.datatype not in _TYPES:
        raise InvalidInputError(
            f"input {spec.name!r} of {spec.datatype} can't be said in this API", cure=_ELSEWHERE
        )
    shape = spec.shape
    if tensor.HasField("tensor_metadata"):
        given = _datatype(tensor)
        if given != spec.datatype:
            raise InvalidInputError(f"input {spec.name!r} is {spec.datatype}, not {given}")
        shape = tuple(tensor.tensor_metadata.shape) or spec.shape
    return _array(tensor, spec.name, spec.datatype, shape, allowance)


def _array(
    tensor: pb.Tensor, name: str, datatype: str, shape: tuple[int, ...], allowance: Allowance
) -> NDArray[Any]:
    width = dtype_of(datatype).itemsize
    held = None
    if tensor.WhichOneof("data") == "byte_data":
        held = len(tensor.byte_data)
    elif tensor.WhichOneof("data") is not None:
        held = tensor.shared_memory_handle.size or None
    shape = _closed(shape, held, width, name)
    data = data_of(tensor, math.prod(shape) * width, allowance, what=f"tensor {name!r}")
    return from_bytes(data, datatype, shape, name=name)


def _closed(shape: tuple[int, ...], held: int | None, width: int, name: str) -> tuple[int, ...]:
    """The shape with the length that was left open, from how many bytes there are."""
    left_open = shape.count(-1)
    if any(length < -1 for length in shape) or left_open > 1:
        raise InvalidInputError(
            f"tensor {name!r} of shape {list(shape)} leaves more than one length open",
            cure="send the shape that this request has",
        )
    if not left_open:
        return shape
    rest = width * math.prod(length for length in shape if length != -1)
    if not rest or held is None or held % rest:
        raise InvalidInputError(
            f"the open length of tensor {name!r} of shape {list(shape)} doesn't follow from its "
            f"{held or 0} bytes",
            cure="send the shape that this request has",
        )
    return tuple(held // rest if length == -1 else length for length in shape)
