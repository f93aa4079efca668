"""Tensors of gRPC messages as arrays.

Rules kept here:

- Inputs are all raw (``raw_input_contents``) or all typed (``contents``), as the protocol wants it.
  A tensor in shared memory has neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import InvalidInputError, LimitExceededError
from edgefleet.protocol.inference_header import MAX_NAME_CHARACTERS, MAX_TENSORS
from edgefleet.protocol.tensors import count_of, dtype_of, from_bytes
from edgefleet_runtime.serve.extensions.placement import Placement, placement_of, take
from edgefleet_runtime.serve.grpc.inference_pb2 import ModelInferRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.extensions.memory import SharedMemory

    Memory = Callable[[], SharedMemory]
    """Gives the shared memory, or raises where it is off."""

# open_inference_grpc.proto, InferTensorContents; FP16 and BF16 travel only as raw bytes.
_CONTENTS = {
    "BOOL": "bool_contents", "BYTES": "bytes_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents",
}  # fmt: skip
_UNKNOWN = "classification"


def inputs_of(request: ModelInferRequest, memory: Memory) -> dict[str, Any]:
    """The inputs by name; read-only views of the message where that is possible.

    What lies on a GPU comes as a `DeviceTensor`.

    Raises:
        EdgeFleetError: a tensor and its data don't fit, or there are too many.
    """
    _check_size(request)
    raw = request.raw_input_contents
    found: dict[str, Any] = {}
    taken = 0
    for tensor in request.inputs:
        name, shape = tensor.name, tuple(tensor.shape)
        if not name or name in found:
            raise InvalidInputError(f"input {name[:MAX_NAME_CHARACTERS]!r} is twice or has no name")
        placement = None
        if tensor.parameters:
            placement = placement_of(values_of(tensor.parameters), f"input {name!r}")
        if (raw or placement) and tensor.HasField("contents"):
            raise InvalidInputError(f"input {name!r} has contents, and its data elsewhere as well")
        array: Any
        if placement is not None:
            array = take(memory(), placement, tensor.datatype, shape, name=name)
        elif raw:
            if taken == len(raw):
                raise InvalidInputError(f"input {name!r} has no raw_input_contents of its own")
            array = from_bytes(raw[taken], tensor.datatype, shape, name=name)
            taken += 1
        else:
            array = _typed(tensor, shape)
        found[name] = array
    if taken != len(raw):
        raise InvalidInputError(f"{len(raw) - taken} raw_input_contents belong to no input")
    return found


def outputs_of(request: ModelInferRequest) -> dict[str, Placement | None] | None:
    """The outputs wanted, in this order, with their places in shared memory; None for all.

    Raises:
        InvalidInputError: one is asked for twice, or as what isn't supported.
    """
    wanted: dict[str, Placement | None] = {}
    for output in request.outputs:
        where = f"output {output.name[:MAX_NAME_CHARACTERS]!r}"
        if output.name in wanted:
            raise InvalidInputError(f"{where} is asked for twice")
        placement = None
        if output.parameters:
            parameters = values_of(output.parameters)
            if _UNKNOWN in parameters:
                raise InvalidInputError(f"{where} asks for {_UNKNOWN}, which is not supported here")
            placement = placement_of(parameters, where)
        wanted[output.name] = placement
    return wanted or None


def values_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of a message as plain values; one without a value is left out."""
    kinds = {key: value.WhichOneof("parameter_choice") for key, value in parameters.items()}
    return {key: getattr(parameters[key], kind) for key, kind in kinds.items() if kind}


def _check_size(request: ModelInferRequest) -> None:
    if len(request.inputs) > MAX_TENSORS or len(request.outputs) > MAX_TENSORS:
        raise LimitExceededError(f"a request may have {MAX_TENSORS} inputs and outputs")
    if len(request.id) > MAX_NAME_CHARACTERS:
        raise LimitExceededError(f"a request's id may have {MAX_NAME_CHARACTERS} characters")


def _typed(tensor: ModelInferRequest.InferInputTensor, shape: tuple[int, ...]) -> NDArray[Any]:
    name, datatype = tensor.name, tensor.datatype
    dtype = dtype_of(datatype)
    field = _CONTENTS.get(datatype)
    if field is None:
        raise InvalidInputError(
            f"input {name!r} of {datatype} has no typed contents", cure="use raw_input_contents"
        )
    count = count_of(shape, name=name)
    elements = getattr(tensor.contents, field)
    held = sum(len(value) for _, value in tensor.contents.ListFields())
    if not len(elements) == held == count:
        raise InvalidInputError(
            f"input {name!r} of {datatype}{list(shape)} takes {count} elements in {field}, "
            f"it has {len(elements)} there and {held - len(elements)} elsewhere"
        )
    if datatype == "BYTES":
        array = np.empty(count, object)
        array[:] = elements
        return array.reshape(shape)
    # protobuf checked the type on the wire, which is wider: an INT8 of 300 must not become 44.
    if dtype.kind in "iu" and count:
        limits = np.iinfo(dtype)
        if not limits.min <= min(elements) <= max(elements) <= limits.max:
            raise InvalidInputError(f"an element of input {name!r} is no {datatype}")
    return np.array(elements, dtype).reshape(shape)
