"""Inference requests and responses of Open Inference Protocol v2 over REST, for both ends.

A body is a JSON header and, where tensors travel as raw bytes, those bytes behind it in the order
of their tensors; ``Inference-Header-Content-Length`` then tells where the header ends. Tensors in
JSON and in raw bytes may be mixed in one body. Specifications: Open Inference Protocol v2 (REST)
and its "binary tensor data" extension.

Rules kept here:

- Any bytes at all give a message or `InvalidInputError`, never another error, and never memory that
  isn't in proportion to them (`edgefleet.protocol.tensors`).
- What a request asks for and this protocol's version here can't honour is refused, not ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.inference_header import (
    HEADER_LENGTH,
    Parameters,
    arrays,
    flag,
    read_header_length,
    refuse_unsupported,
    split_request,
    split_response,
)
from edgefleet.protocol.names import several
from edgefleet.protocol.tensor_json import to_json
from edgefleet.protocol.tensors import datatype_of, to_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BINARY",
    "HEADER_LENGTH",
    "JSON",
    "Encoded",
    "InferRequest",
    "InferResponse",
    "decode_request",
    "decode_response",
    "encode_request",
    "encode_response",
    "read_header_length",
]

JSON = "application/json"
BINARY = "application/octet-stream"
_ALIGNMENT = 16  # bytes; raw data starts at a multiple, so that a receiver can use it in place


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded request.

    Attributes:
        inputs: the tensors by name; read-only views of the body where that is possible.
        outputs: names wanted, in this order, and whether each goes as raw bytes; None for all.
        binary: whether outputs go as raw bytes when ``outputs`` is None.
        id: to be repeated in the response.
        parameters: the request's own, for whoever knows them.
    """

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, bool] | None = None
    binary: bool = False
    id: str | None = None
    parameters: Parameters = {}

    def sends_binary(self, output: str) -> bool:
        """Whether this output goes back as raw bytes."""
        return self.binary if self.outputs is None else self.outputs.get(output, self.binary)


class InferResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded response; ``outputs`` by name in the server's order."""

    model_name: str
    outputs: dict[str, NDArray[Any]]
    model_version: str | None = None
    id: str | None = None
    parameters: Parameters = {}


class Encoded(msgspec.Struct, frozen=True, kw_only=True):
    """A body in the parts it was made of, so that large tensors needn't be copied into one.

    Attributes:
        parts: the JSON header, then the raw bytes of tensors.
        header_length: bytes of the JSON header; None when the body is JSON and nothing else.
    """

    parts: tuple[bytes | memoryview, ...]
    header_length: int | None

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.parts)

    @property
    def headers(self) -> dict[str, str]:
        """The HTTP headers that tell a receiver how to read the body."""
        if self.header_length is None:
            return {"Content-Type": JSON}
        return {"Content-Type": BINARY, HEADER_LENGTH: str(self.header_length)}


def encode_request(
    inputs: Mapping[str, NDArray[Any]],
    *,
    outputs: Sequence[str] | None = None,
    request_id: str | None = None,
    binary: bool = True,
) -> tuple[bytes, dict[str, str]]:
    """The body of an inference request and the headers to send with it.

    Args:
        inputs: tensors by name; any array that can become one of the protocol's datatypes.
        outputs: names wanted, in this order; None for all.
        request_id: repeated in the response.
        binary: send tensors as raw bytes and ask for the outputs so too; otherwise all in JSON.

    Raises:
        InvalidInputError: an array has a dtype or values that can't be carried, or one text is
            given for a list of outputs.
    """
    header: dict[str, Any] = {}
    if request_id is not None:
        header["id"] = request_id
    if binary:
        header["parameters"] = {"binary_data_output": True}
    if outputs is not None:
        names = several(outputs, "outputs", '["scores"]')
        header["outputs"] = [{"name": name} for name in names]
    encoded = _encode(header, "inputs", {name: (a, binary) for name, a in inputs.items()})
    return encoded.body, encoded.headers


def decode_request(body: bytes | memoryview, header_length: int | None = None) -> InferRequest:
    """Read the body of an inference request.

    Args:
        body: as it arrived, decompressed.
        header_length: of the ``Inference-Header-Content-Length`` header; None without one.

    Raises:
        InvalidInputError: it is malformed, over a limit, or asks for what isn't supported here.
    """
    header, data = split_request(body, header_length)
    binary = flag(header.parameters, "binary_data_output", default=False, where="the request")
    outputs: dict[str, bool] = {}
    for wanted in header.outputs:
        where = f"output {wanted.name!r}"
        refuse_unsupported(wanted.parameters, where)
        if wanted.name in outputs:
            msg = f"{where} is asked for twice"
            raise InvalidInputError(msg)
        outputs[wanted.name] = flag(wanted.parameters, "binary_data", default=binary, where=where)
    return InferRequest(
        inputs=arrays(header.inputs, data, "input"),
        outputs=outputs or None,
        binary=binary,
        id=header.id,
        parameters=header.parameters,
    )


def encode_response(
    model_name: str,
    model_version: str,
    outputs: Mapping[str, NDArray[Any]],
    *,
    request: InferRequest | None = None,
) -> Encoded:
    """The body of an inference response, its outputs in the form that the request asks for.

    Raises:
        InvalidInputError: JSON can't carry a value (NaN, bytes that aren't UTF-8), or the protocol
            can't carry a dtype.
    """
    header: dict[str, Any] = {"model_name": model_name, "model_version": model_version}
    if request is not None and request.id is not None:
        header["id"] = request.id
    forms = {
        name: (array, request is not None and request.sends_binary(name))
        for name, array in outputs.items()
    }
    return _encode(header, "outputs", forms)


def decode_response(body: bytes | memoryview, header_length: int | None = None) -> InferResponse:
    """Read the body of an inference response; arguments and errors as of `decode_request`."""
    header, data = split_response(body, header_length)
    return InferResponse(
        model_name=header.model_name,
        model_version=header.model_version,
        id=header.id,
        parameters=header.parameters or {},
        outputs=arrays(header.outputs, data, "output"),
    )


def _encode(
    header: dict[str, Any], key: str, tensors: Mapping[str, tuple[NDArray[Any], bool]]
) -> Encoded:
    import numpy as np  # noqa: PLC0415

    described: list[dict[str, Any]] = []
    raw: list[bytes | memoryview] = []
    for name, (given, binary) in tensors.items():
        array = np.asarray(given)
        tensor: dict[str, Any] = {
            "name": name,
            "shape": array.shape,
            "datatype": datatype_of(array.dtype),
        }
        if binary:
            data = to_bytes(array, name=name)
            tensor["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        else:
            tensor["data"] = to_json(array, name=name)
        described.append(tensor)
    header[key] = described
    try:
        text = msgspec.json.encode(header)
    except UnicodeEncodeError as error:
        msg = f"a name in the message is not Unicode text: {error.reason}"
        raise InvalidInputError(msg) from error
    if not raw:
        return Encoded(parts=(text,), header_length=None)
    text += b" " * (-len(text) % _ALIGNMENT)
    return Encoded(parts=(text, *raw), header_length=len(text))
