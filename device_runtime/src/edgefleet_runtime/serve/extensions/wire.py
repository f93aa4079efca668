"""Inference requests over REST in the forms that only extensions know.

Three forms: the whole body is the one input's raw data (``Inference-Header-Content-Length: 0``),
tensors lie in shared memory, and the answer is to be compressed. `Wire` is made for a request that
uses any of them; other requests never touch this.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.inference import (
    BINARY,
    HEADER_LENGTH,
    JSON,
    Encoded,
    InferRequest,
    encode_response,
)
from edgefleet.protocol.inference_header import RequestHeader, arrays, flag, split_request
from edgefleet.protocol.tensor_json import to_json
from edgefleet.protocol.tensors import datatype_of, dtype_of, from_bytes, to_bytes
from edgefleet_runtime.serve.extensions.placement import (
    Placement,
    placement_of,
    planned,
    put,
    take,
)
from edgefleet_runtime.serve.messages import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface
    from edgefleet_runtime.serve.extensions.memory import SharedMemory
    from edgefleet_runtime.serve.plan import ReadPlan

_COMPRESSED_ABOVE = 1024  # bytes; below, a packet more or less decides, and that costs nothing here
_LEVEL = 1  # zlib's fastest: tensors hardly shrink further
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
MARK = b"shared_memory_region"


def coding_of(accepted: bytes | None) -> str | None:
    """The coding to compress an answer with: the one that a client names alone.

    A client that lists several says what its library could read, not that it wants it; on the same
    machine that costs time and saves nothing.
    """
    if accepted is None:
        return None
    name = accepted.decode("latin-1").strip().lower()
    return name if name in _WINDOWS else None


def response_of(encoded: Encoded) -> Response:
    """The answer with this body."""
    if encoded.header_length is None:
        return Response(200, encoded.parts, content_type=JSON)
    told = ((HEADER_LENGTH, str(encoded.header_length)),)
    return Response(200, encoded.parts, content_type=BINARY, headers=told)


class Wire:
    """Decodes one request and encodes its answer.

    Args:
        interface: of the model that is asked.
        regions: shared memory; None where that is off.
        coding: ``gzip`` or ``deflate`` for the answer; None for neither.

    Attributes:
        placed: outputs that go to shared memory; known once the body is decoded.
    """

    def __init__(
        self, *, interface: Interface, regions: SharedMemory | None, coding: str | None
    ) -> None:
        self._interface = interface
        self.regions = regions
        self.coding = coding
        self.placed: dict[str, Placement] = {}

    def decode(self, body: bytes | memoryview, header_length: int | None) -> InferRequest:
        """Read the body; errors as of `edgefleet.protocol.inference.decode_request`."""
        if header_length == 0:
            return self._raw(memoryview(body))
        header, data = split_request(body, header_length)
        binary = flag(header.parameters, "binary_data_output", default=False, where="the request")
        outputs: dict[str, bool] = {}
        for wanted in header.outputs:
            where = f"output {wanted.name!r}"
            if wanted.name in outputs:
                raise InvalidInputError(f"{where} is asked for twice")
            if "classification" in wanted.parameters:
                raise InvalidInputError(
                    f"{where} asks for classification, which is not supported here",
                    cure="ask for the plain tensor",
                )
            placed = self._placement(wanted.parameters, where)
            if placed is not None:
                self.placed[wanted.name] = placed
            given = flag(wanted.parameters, "binary_data", default=binary, where=where)
            outputs[wanted.name] = given
        return InferRequest(
            inputs=self._inputs(header, data),
            outputs=outputs or None,
            binary=binary,
            id=header.id,
            parameters=header.parameters,
        )

    def planned(self, inputs: Mapping[str, Any], **more: Any) -> ReadPlan[Any]:  # noqa: ANN401 - Plan's
        """The plan of the request that was decoded, wherever its tensors lie."""
        return planned(inputs, self.placed, self.regions, **more)

    def encode(
        self, name: str, version: str, outputs: Mapping[str, NDArray[Any]], asked: InferRequest
    ) -> Encoded:
        """The answer's body, after what goes to shared memory has been laid there."""
        if not self.placed or self.regions is None:
            return encode_response(name, version, outputs, request=asked)
        tensors: list[dict[str, Any]] = []
        raw: list[bytes | memoryview] = []
        for key, array in outputs.items():
            described: dict[str, Any] = {
                "name": key,
                "datatype": datatype_of(array.dtype),
                "shape": array.shape,
            }
            if (placement := self.placed.get(key)) is not None:
                described["parameters"] = put(self.regions, placement, array, name=key)
            elif asked.sends_binary(key):
                data = to_bytes(array, name=key)
                described["parameters"] = {"binary_data_size": len(data)}
                raw.append(data)
            else:
                described["data"] = to_json(array, name=key)
            tensors.append(described)
        header: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": tensors}
        if asked.id is not None:
            header["id"] = asked.id
        text = msgspec.json.encode(header)
        return Encoded(parts=(text, *raw), header_length=len(text) if raw else None)

    def finish(self, response: Response) -> Response:
        """Compress the answer if it asked for that and is worth it."""
        if self.coding is None or sum(map(len, response.body)) <= _COMPRESSED_ABOVE:
            return response
        deflater = zlib.compressobj(_LEVEL, wbits=_WINDOWS[self.coding])
        packed = [deflater.compress(part) for part in response.body]
        response.body = (b"".join((*packed, deflater.flush())),)
        response.headers = (*response.headers, ("Content-Encoding", self.coding))
        return response

    def _raw(self, body: memoryview) -> InferRequest:
        """The whole body as the only input, as the "binary tensor data" extension has it."""
        if len(self._interface.inputs) != 1:
            raise InvalidInputError(
                f"a raw body fits a model of one input, this one has {len(self._interface.inputs)}",
                cure="send a JSON header in front of the tensors",
            )
        spec = self._interface.inputs[0]
        open_lengths = spec.shape.count(-1)
        if spec.datatype == "BYTES":
            # The body is one element, without a length of its own.
            if any(length not in {-1, 1} for length in spec.shape):
                raise InvalidInputError(f"a raw body can't fill input {spec.name!r}: not 1 element")
            import numpy as np  # noqa: PLC0415 - see edgefleet.protocol.tensors

            element = np.empty(1, object)
            element[0] = bytes(body)
            shape = tuple(1 if length == -1 else length for length in spec.shape)
            return InferRequest(inputs={spec.name: element.reshape(shape)}, binary=True)
        if open_lengths > 1:
            raise InvalidInputError(
                f"a raw body doesn't tell the shape of input {spec.name!r}, {list(spec.shape)}",
                cure="send a JSON header in front of the tensor",
            )
        fixed = dtype_of(spec.datatype).itemsize
        for length in spec.shape:
            fixed *= 1 if length == -1 else length
        rows = len(body) // fixed if fixed else 0
        shape = tuple(rows if length == -1 else length for length in spec.shape)
        array = from_bytes(body, spec.datatype, shape, name=spec.name)
        return InferRequest(inputs={spec.name: array}, binary=True)

    def _inputs(self, header: RequestHeader, data: memoryview) -> dict[str, Any]:
        found: dict[str, Any] = {}
        rest = []
        for tensor in header.inputs:
            where = f"input {tensor.name!r}"
            placed = self._placement(tensor.parameters, where)
            if placed is None or self.regions is None:
                rest.append(tensor)
                continue
            if memoryview(tensor.data) or "binary_data_size" in tensor.parameters:
                raise InvalidInputError(f"{where} has data and is in shared memory as well")
            if tensor.name in found:
                raise InvalidInputError(f"{where} is given twice")
            shape = tensor.shape
            found[tensor.name] = take(
                self.regions, placed, tensor.datatype, shape, name=tensor.name
            )
        plain = arrays(rest, data, "input")
        if twice := found.keys() & plain.keys():
            raise InvalidInputError(f"input {min(twice)!r} is given twice")
        return {**found, **plain}

    def _placement(self, parameters: Mapping[str, Any], where: str) -> Placement | None:
        placed = placement_of(parameters, where)
        if placed is not None and self.regions is None:
            raise InvalidInputError(
                f"{where} is in shared memory, which is off here",
                cure="serve on loopback or a Unix socket of a Linux machine, or send plain tensors",
            )
        return placed
