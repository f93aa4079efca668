"""Answers over gRPC, mostly written without message objects.

Tensors are raw, as in Triton's answers: a client in Python would turn typed ones into lists.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgefleet.protocol.tensors import datatype_of, to_bytes
from edgefleet_runtime.serve.extensions.placement import REGION, Placement, put
from edgefleet_runtime.serve.grpc.inference_pb2 import ModelInferResponse
from edgefleet_runtime.serve.plan import Joined, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.grpc.tensors import Memory
    from edgefleet_runtime.serve.plan import Arrays
    from edgefleet_runtime.serve.table import ServedModel

MAX_HEADS = 16  # answers of different shape that one writer prepares
_BIG_ENDIAN = sys.byteorder == "big"
_RAW_OUTPUT = b"\x32"  # field 6, raw_output_contents, length-delimited


class Reply:
    """What a call is answered with.

    Attributes:
        data: a ``ModelInferResponse``; empty when there is an error.
        error: gRPC's name of the status, and what the client is told.
        after: called once the answer is given.
    """

    __slots__ = ("after", "data", "error")

    def __init__(self, data: bytes, error: tuple[str, str] | None = None) -> None:
        self.data = data
        self.error = error
        self.after: Callable[[], None] | None = None


class RawWriter(Writer[Reply]):
    """Writes answers in raw bytes; what stands before each tensor's is kept for the next.

    Args:
        request_id: to be repeated.
    """

    __slots__ = ("_heads", "_id", "_served")

    def __init__(self, request_id: str = "") -> None:
        self._id = request_id
        self._served: ServedModel | None = None  # whose answers have these heads
        self._heads: dict[Hashable, tuple[bytes, ...]] = {}

    def answer(self, served: ServedModel, outputs: Arrays) -> Reply:
        arrays = [*outputs.values()]
        if _BIG_ENDIAN or any(array.dtype.kind in "OSU" for array in arrays):
            bodies: list[Any] = [to_bytes(array, name=name) for name, array in outputs.items()]
            return Reply(_laid(self._made(served, outputs, bodies), bodies))
        bodies = [array.tobytes() for array in arrays]
        shapes = arrays[0].shape if len(arrays) == 1 else tuple([a.shape for a in arrays])
        return Reply(_laid(self._head(served, shapes, outputs, bodies), bodies))

    def part(self, served: ServedModel, joined: Joined, start: int, stop: int) -> Reply:
        columns = joined.columns
        if columns is None:
            return super().part(served, joined, start, stop)
        rows = stop - start
        bodies: list[Any] = [data[start * size : stop * size] for _, data, size in columns]
        if joined.writer is self and joined.each == rows:
            head: tuple[bytes, ...] = joined.head
        else:
            shapes = tuple((rows, *column.row) for column in columns)
            key = shapes[0] if len(shapes) == 1 else shapes
            head = self._head(served, key, joined.rows(start, stop), bodies)
            joined.writer, joined.each, joined.head = self, rows, head
        return Reply(_laid(head, bodies))

    def _head(
        self, served: ServedModel, shapes: Hashable, outputs: Arrays, bodies: list[Any]
    ) -> tuple[bytes, ...]:
        """What stands before each of the bodies, whose lengths these shapes fix."""
        if self._served is not served:
            self._served = served
            self._heads.clear()
        head = self._heads.get(shapes)
        if head is None:
            if len(self._heads) >= MAX_HEADS:
                self._heads.clear()
            head = self._heads[shapes] = self._made(served, outputs, bodies)
        return head

    def _made(self, served: ServedModel, outputs: Arrays, bodies: list[Any]) -> tuple[bytes, ...]:
        about = ModelInferResponse(
            model_name=served.name, model_version=served.version, id=self._id
        )
        for name, array in outputs.items():
            about.outputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        return (about.SerializeToString(), *[_RAW_OUTPUT + varint(len(body)) for body in bodies])


class PlacedWriter(Writer[Reply]):
    """Writes one answer, after what goes to shared memory has been laid there.

    Args:
        request_id: to be repeated.
        places: the outputs wanted, with their places.
        memory: gives the shared memory.
    """

    __slots__ = ("_id", "_memory", "_places")

    def __init__(
        self, request_id: str, places: Mapping[str, Placement | None] | None, memory: Memory
    ) -> None:
        self._id = request_id
        self._places = places or {}
        self._memory = memory

    def answer(self, served: ServedModel, outputs: Mapping[str, NDArray[Any]]) -> Reply:
        response = ModelInferResponse(
            model_name=served.name, model_version=served.version, id=self._id
        )
        for name, array in outputs.items():
            tensor = response.outputs.add(
                name=name, datatype=datatype_of(array.dtype), shape=array.shape
            )
            placement = self._places.get(name)
            if placement is None:
                response.raw_output_contents.append(bytes(to_bytes(array, name=name)))
                continue
            for key, value in put(self._memory(), placement, array, name=name).items():
                if key == REGION:
                    tensor.parameters[key].string_param = str(value)
                else:
                    tensor.parameters[key].int64_param = int(value)
        return Reply(response.SerializeToString())


def varint(number: int) -> bytes:
    """A whole number as protobuf writes it: seven bits a byte, the lowest first."""
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _laid(head: tuple[bytes, ...], bodies: list[Any]) -> bytes:
    if len(bodies) == 1:
        return b"".join((*head, bodies[0]))
    parts = [head[0]]
    for tag, body in zip(head[1:], bodies, strict=True):
        parts += (tag, body)
    return b"".join(parts)
