"""Answers over gRPC, mostly written without message objects.

Tensors are raw, as in Triton's answers: a client in Python would turn typed ones into lists.
"""

from __future__ import annotations

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

    __slots__ = ("_heads", "_id")

    def __init__(self, request_id: str = "") -> None:
        self._id = request_id
        self._heads: dict[Hashable, tuple[bytes, ...]] = {}

    def answer(self, served: ServedModel, outputs: Arrays) -> Reply:
        bodies = [bytes(to_bytes(array, name=name)) for name, array in outputs.items()]
        return Reply(_laid(self._head(served, outputs, bodies), bodies))

    def part(self, served: ServedModel, joined: Joined, start: int, stop: int) -> Reply:
        columns = joined.columns
        if columns is None:
            return super().part(served, joined, start, stop)
        rows = stop - start
        bodies = [data[start * size : stop * size] for _, data, size in columns]
        if joined.memo is not None and joined.memo[:2] == (self, rows):
            head: tuple[bytes, ...] = joined.memo[2]
        else:
            head = self._head(served, joined.rows(start, stop), bodies)
            joined.memo = (self, rows, head)
        return Reply(_laid(head, bodies))

    def _head(self, served: ServedModel, outputs: Arrays, bodies: list[Any]) -> tuple[bytes, ...]:
        """What stands before each of the bodies."""
        key = (
            served.name,
            served.version,
            *[(name, array.dtype, array.shape) for name, array in outputs.items()],
        )
        head = self._heads.get(key)
        if head is None:
            about = ModelInferResponse(
                model_name=served.name, model_version=served.version, id=self._id
            )
            for name, array in outputs.items():
                about.outputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
            tags = [_RAW_OUTPUT + varint(len(body)) for body in bodies]
            head = (about.SerializeToString(), *tags)
            fixed = all(array.dtype.kind not in "OSU" for array in outputs.values())
            if fixed:
                if len(self._heads) >= MAX_HEADS:
                    self._heads.clear()
                self._heads[key] = head
        return head


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
