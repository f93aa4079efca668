"""The JSON headers of inference messages, and the tensors that they and raw bytes make.

`edgefleet.protocol.inference` is the face of this.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.tensor_json import from_json
from edgefleet.protocol.tensors import MAX_RANK, from_bytes
from edgefleet.protocol.typed import UNREADABLE, decoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_TENSORS = 256  # tensors of one message
MAX_NAME_CHARACTERS = 512  # of a tensor's name, of a request's id

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME_CHARACTERS)]
Shape = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=MAX_RANK)]
Parameters = dict[str, str | int | float | bool]
_NOTHING = msgspec.Raw()
_REFUSED = ("classification", "shared_memory_region")


class TensorHeader(msgspec.Struct):
    """A tensor: its data here in JSON, or ``binary_data_size`` bytes behind the header."""

    name: Name
    shape: Shape
    datatype: str
    parameters: Parameters = {}
    data: msgspec.Raw = _NOTHING


class WantedOutput(msgspec.Struct):
    """An output that a request asks for."""

    name: Name
    parameters: Parameters = {}


Tensors = Annotated[tuple[TensorHeader, ...], msgspec.Meta(max_length=MAX_TENSORS)]


class RequestHeader(msgspec.Struct):
    """The JSON header of a request."""

    inputs: Tensors
    outputs: Annotated[tuple[WantedOutput, ...], msgspec.Meta(max_length=MAX_TENSORS)] = ()
    id: Annotated[str, msgspec.Meta(max_length=MAX_NAME_CHARACTERS)] | None = None
    parameters: Parameters = {}


class AnsweredTensor(msgspec.Struct):
    """An output as any server writes it: KServe's says ``null`` for no parameters."""

    name: Name
    shape: Shape
    datatype: str
    parameters: Parameters | None = None
    data: msgspec.Raw = _NOTHING


class ResponseHeader(msgspec.Struct):
    """The JSON header of a response."""

    outputs: Annotated[tuple[AnsweredTensor, ...], msgspec.Meta(max_length=MAX_TENSORS)]
    model_name: str
    model_version: str | None = None
    id: str | None = None
    parameters: Parameters | None = None


_H = TypeVar("_H")
_request_decoder = decoder(RequestHeader)
_response_decoder = decoder(ResponseHeader)


def split_request(
    body: bytes | memoryview, header_length: int | None
) -> tuple[RequestHeader, memoryview]:
    """The JSON header of a request and the raw bytes behind it.

    Raises:
        InvalidInputError: the header isn't where its length says, or it is malformed.
    """
    return _split(body, header_length, _request_decoder, "inference request")


def split_response(
    body: bytes | memoryview, header_length: int | None
) -> tuple[ResponseHeader, memoryview]:
    """The same of a response."""
    return _split(body, header_length, _response_decoder, "inference response")


def arrays(
    tensors: Sequence[TensorHeader | AnsweredTensor], data: memoryview, kind: str
) -> dict[str, NDArray[Any]]:
    """The tensors by name.

    Args:
        tensors: as the header describes them.
        data: the raw bytes behind the header, all of which must belong to a tensor.
        kind: what errors call them: input, output.

    Raises:
        InvalidInputError: a tensor and its data don't fit, or one is given twice.
    """
    arrays: dict[str, NDArray[Any]] = {}
    start = 0
    for tensor in tensors:
        name = tensor.name
        where = f"{kind} {name!r}"
        if name in arrays:
            msg = f"{where} is given twice"
            raise InvalidInputError(msg)
        parameters = tensor.parameters or {}
        refuse_unsupported(parameters, where)
        size = parameters.get("binary_data_size")
        has_json = len(memoryview(tensor.data)) > 0
        if has_json == (size is not None):
            msg = f"{where} needs either data or the parameter binary_data_size"
            raise InvalidInputError(msg)
        if size is None:
            array = from_json(memoryview(tensor.data), tensor.datatype, tensor.shape, name=name)
        else:
            if isinstance(size, bool) or not isinstance(size, int):
                msg = f"binary_data_size of {where} is no whole number"
                raise InvalidInputError(msg)
            if not 0 <= size <= len(data) - start:
                msg = f"{where} claims {size} raw bytes, the body has {len(data) - start} left"
                raise InvalidInputError(msg, cure=f"send them, and {HEADER_LENGTH}")
            array = from_bytes(data[start : start + size], tensor.datatype, tensor.shape, name=name)
            start += size
        arrays[name] = array
    if start != len(data):
        msg = f"{len(data) - start} raw bytes of the body belong to no {kind}"
        raise InvalidInputError(msg, cure="give each raw tensor its binary_data_size")
    return arrays


def read_header_length(given: str | None) -> int | None:
    """Where the JSON header of a body ends; None when the body is JSON and nothing else.

    Args:
        given: the header field `HEADER_LENGTH`; None where there is none.

    Raises:
        InvalidInputError: it is no whole number.
    """
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 20):
        msg = f"{HEADER_LENGTH} is no whole number: {given[:40]!r}"
        raise InvalidInputError(msg)
    return int(given)


def flag(parameters: Parameters, name: str, *, default: bool, where: str) -> bool:
    """A parameter that must be true or false where it is given."""
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        msg = f"parameter {name} of {where} must be true or false"
        raise InvalidInputError(msg)
    return value


def refuse_unsupported(parameters: Parameters, where: str) -> None:
    """Raise `InvalidInputError` for parameters that change what a tensor means."""
    for name in _REFUSED:
        if name in parameters:
            msg = f"{where} asks for {name}, which is not supported here"
            raise InvalidInputError(msg, cure="send and ask for plain tensors")


def _split(
    body: bytes | memoryview,
    header_length: int | None,
    decoder: msgspec.json.Decoder[_H],
    what: str,
) -> tuple[_H, memoryview]:
    """The JSON header and the raw bytes behind it."""
    view = memoryview(body)
    end = len(view) if header_length is None else header_length
    if not 0 < end <= len(view):
        msg = f"the JSON header of the {what} can't have {end} bytes, the body has {len(view)}"
        raise InvalidInputError(msg)
    try:
        return decoder.decode(view[:end]), view[end:]
    except UNREADABLE as error:
        msg = f"malformed {what}: {error}"
        raise InvalidInputError(msg) from error
