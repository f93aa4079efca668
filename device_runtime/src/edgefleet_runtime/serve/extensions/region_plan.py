"""Requests over REST whose tensors lie in system shared memory, when they come again.

Clients that use shared memory send the same JSON over and over. Rules kept here:

- Remembered is where tensors lie, never what lies there: every request is read from its region and
  every answer written to it by the region's name, with all the checks of a first request.
- All inputs lie in regions, in elements of fixed size; outputs do, or come in raw bytes.
"""

from __future__ import annotations

import sys
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from edgefleet.protocol.inference_header import split_request
from edgefleet.protocol.tensors import dtype_of, to_bytes
from edgefleet_runtime.serve.extensions.placement import BYTE_SIZE, OFFSET, REGION, placement_of
from edgefleet_runtime.serve.extensions.wire import response_of
from edgefleet_runtime.serve.messages import Prepared, Response, Template
from edgefleet_runtime.serve.plan import HEEDED, NO_FIXED_BYTES, Plan, Writer

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from edgefleet.protocol.bundle import Interface
    from edgefleet.protocol.inference import InferRequest
    from edgefleet_runtime.serve.extensions.memory import SharedMemory
    from edgefleet_runtime.serve.extensions.wire import Wire
    from edgefleet_runtime.serve.plan import Arrays
    from edgefleet_runtime.serve.table import ServedModel

    Answer = Response | Prepared

MAX_TEMPLATES = 16  # answers of different shape that one plan prepares
_KNOWN = HEEDED | {"binary_data_output"}  # others may change what a request means
_PLACED = {REGION, BYTE_SIZE, OFFSET}


class Place(NamedTuple):
    """An input, and where it lies."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    region: str
    offset: int


class RegionPlan(Plan["Answer"]):
    """Requests with one body, whose inputs lie in regions; arguments as of `Plan`.

    Args:
        inputs: what comes in, and where.
        body_bytes: of the body.
        memory: has the regions.

    Attributes:
        bytes: of all inputs.
    """

    __slots__ = ("_inputs", "body_bytes", "bytes", "memory")

    def __init__(
        self,
        inputs: list[Place],
        body_bytes: int,
        memory: SharedMemory,
        **more: Any,  # noqa: ANN401 - Plan's
    ) -> None:
        self._inputs = tuple(sorted(inputs))
        self.body_bytes = body_bytes
        self.memory = memory
        self.bytes = sum(prod(place.shape) * place.dtype.itemsize for place in inputs)
        super().__init__([(name, dtype, shape) for name, dtype, shape, *_ in self._inputs], **more)

    def arrays(self, data: bytes) -> dict[str, NDArray[Any]]:
        del data
        return {place.name: self._read(place) for place in self._inputs}

    def raw(self, data: bytes, index: int) -> NDArray[Any]:
        del data
        return self._read(self._inputs[index])

    def _read(self, place: Place) -> NDArray[Any]:
        _, dtype, shape, region, offset = place
        array: NDArray[Any] = np.empty(shape, dtype)
        self.memory.system.fill(region, offset, array)
        array.flags.writeable = False
        return array


class RegionWriter(Writer["Answer"]):
    """Lays outputs into regions, and makes answers from what is the same in all of them.

    Args:
        asked: the request, without inputs.
        wire: as it decoded that.
        memory: has the regions.
    """

    __slots__ = ("_asked", "_memory", "_templates", "_wire")

    def __init__(
        self,
        asked: InferRequest,
        wire: Wire,
        memory: SharedMemory,
    ) -> None:
        self._asked = asked
        self._wire = wire
        self._memory = memory
        self._templates: dict[Hashable, Template] = {}

    def answer(self, served: ServedModel, outputs: Arrays) -> Answer:
        shapes = tuple([array.shape for array in outputs.values()])
        template = self._templates.get(shapes)
        if template is None:
            return self._first(served, shapes, outputs)
        placed = self._wire.placed
        raw = []
        for name, array in outputs.items():
            data = to_bytes(array, name=name)
            place = placed.get(name)
            if place is None:
                raw.append(data)
            else:
                self._memory.system.write(place.region, place.offset, place.byte_size, data)
        return Prepared(template, raw[0] if len(raw) == 1 else b"".join(raw))

    def _first(self, served: ServedModel, shapes: Hashable, outputs: Arrays) -> Answer:
        encoded = self._wire.encode(served.name, served.version, outputs, self._asked)
        like = response_of(encoded)
        data = b"".join(encoded.parts[1:])
        like.body = encoded.parts[:1]
        if len(self._templates) >= MAX_TEMPLATES:
            self._templates.clear()
        template = self._templates[shapes] = Template(like, len(data))
        return Prepared(template, data)


def region_plan_of(
    asked: InferRequest, wire: Wire, body: bytes, header_length: int | None, interface: Interface
) -> RegionPlan | None:
    """The plan of a request that was answered; None where each must be read by itself.

    Args:
        asked: the request, decoded.
        wire: what decoded it.
        body: what it was decoded from.
        header_length: of its JSON header; None where that is all of the body.
        interface: of the model that answered it.
    """
    memory = wire.regions
    if memory is None or memory.uses_gpu or wire.coding is not None or sys.byteorder != "little":
        return None
    wanted = tuple(asked.outputs or ())
    for spec in interface.outputs:
        if wanted and spec.name not in wanted:
            continue
        apart = spec.name in wire.placed or asked.sends_binary(spec.name)
        if spec.datatype in NO_FIXED_BYTES or not apart:
            return None
    header, _ = split_request(body, header_length)
    if not _KNOWN.issuperset(header.parameters) or not header.inputs:
        return None
    if any(tensor.parameters.keys() - _PLACED - {"binary_data"} for tensor in header.outputs):
        return None
    places = []
    for tensor in header.inputs:
        place = placement_of(tensor.parameters, tensor.name)
        if place is None or tensor.datatype in NO_FIXED_BYTES or tensor.parameters.keys() - _PLACED:
            return None
        dtype = dtype_of(tensor.datatype)
        places.append(Place(tensor.name, dtype, tensor.shape, place.region, place.offset))
    return RegionPlan(
        places,
        len(body),
        memory,
        wanted=wanted or None,
        request_id=asked.id,
        parameters=asked.parameters,
        writer=RegionWriter(msgspec.structs.replace(asked, inputs={}), wire, memory),
    )
