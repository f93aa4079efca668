"""Where a tensor lies in shared memory, as a request's parameters say, and the way in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.engines.device_memory import DeviceTensor, is_aligned
from edgefleet_runtime.serve.plan import ReadPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.extensions.memory import SharedMemory
    from edgefleet_runtime.serve.table import ServedModel

REGION = "shared_memory_region"
BYTE_SIZE = "shared_memory_byte_size"
OFFSET = "shared_memory_offset"


class Placement(msgspec.Struct, frozen=True):
    """Bytes of a registered region."""

    region: str
    offset: int
    byte_size: int

    def parameters(self, byte_size: int) -> dict[str, str | int]:
        """What an answer says of an output of so many bytes that lies here."""
        described: dict[str, str | int] = {REGION: self.region, BYTE_SIZE: byte_size}
        return {**described, OFFSET: self.offset} if self.offset else described


def placement_of(parameters: Mapping[str, Any], where: str) -> Placement | None:
    """The placement that a tensor's parameters name; None when it isn't in shared memory.

    Raises:
        InvalidInputError: a parameter is missing or has the wrong type.
    """
    region = parameters.get(REGION)
    if region is None:
        return None
    size, offset = parameters.get(BYTE_SIZE), parameters.get(OFFSET, 0)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (size, offset))
    if not (isinstance(region, str) and whole):
        raise InvalidInputError(
            f"{where} is in shared memory, and its region, byte size or offset is missing or wrong",
            cure=f"give {REGION} as text, {BYTE_SIZE} and {OFFSET} as whole numbers",
        )
    return Placement(region, offset, size)  # type: ignore[arg-type]  # checked together above


def take(
    memory: SharedMemory, placement: Placement, datatype: str, shape: Sequence[int], *, name: str
) -> NDArray[Any] | DeviceTensor:
    """The tensor that lies there.

    Raises:
        EdgeFleetError: no such region or bytes, or they don't fit datatype and shape.
    """
    where = placement.region, placement.offset, placement.byte_size
    return memory.take(*where, datatype, shape, of=name)


def put(
    memory: SharedMemory, placement: Placement, tensor: NDArray[Any] | DeviceTensor, *, name: str
) -> dict[str, str | int]:
    """Lay an output there; returns what the answer says of it.

    Raises:
        EdgeFleetError: no such region or bytes, or it doesn't fit.
    """
    where = placement.region, placement.offset, placement.byte_size
    return placement.parameters(memory.put(*where, tensor, of=name))


class PlacedPlan(ReadPlan[Any]):
    """A request of which tensors lie on a GPU: it runs by itself.

    They stay there where the model runs on the same GPU and nobody else looks at them; else they
    are copied to the host first. Arguments as of `planned`.
    """

    __slots__ = ("_memory", "_places", "_tensors")

    def __init__(
        self,
        inputs: Mapping[str, Any],
        places: Mapping[str, Placement | None],
        memory: SharedMemory,
        **more: Any,  # noqa: ANN401 - Plan's
    ) -> None:
        super().__init__({}, **more)
        self._tensors = dict(inputs)
        self._places = places
        self._memory = memory

    def arrays(self, data: bytes) -> dict[str, Any]:
        del data
        return self._tensors

    def run(
        self, served: ServedModel, inputs: Mapping[str, Any], *, watched: bool
    ) -> tuple[dict[str, Any], float]:
        device = None if watched or served.watchers else served.model.device
        near: set[str] = set()
        if device is not None:
            for name, place in self._places.items():
                if place is not None and self._memory.device_of(place.region) == device:
                    near.add(name)
        fed = {name: _brought(tensor, device) for name, tensor in inputs.items()}
        if near or any(isinstance(tensor, DeviceTensor) for tensor in fed.values()):
            return served.infer(fed, self.wanted, near=near)
        return served.infer(fed, self.wanted, lasting=True)


def planned(
    inputs: Mapping[str, Any],
    places: Mapping[str, Placement | None],
    memory: SharedMemory | None,
    **more: Any,  # noqa: ANN401 - Plan's
) -> ReadPlan[Any]:
    """The plan of one request, wherever its tensors lie.

    Args:
        inputs: as `take` gave them.
        places: where outputs go to.
        memory: the shared memory; None where that is off.
        more: as of `edgefleet_runtime.serve.plan.Plan`.
    """
    if memory is not None and memory.uses_gpu:
        regions = [place.region for place in places.values() if place is not None]
        placed = any(isinstance(tensor, DeviceTensor) for tensor in inputs.values())
        if placed or any(memory.device_of(region) is not None for region in regions):
            return PlacedPlan(inputs, places, memory, **more)
    return ReadPlan(inputs, **more)


def _brought(tensor: Any, device: int | None) -> Any:  # noqa: ANN401 - of the host or a GPU
    """A tensor where the model on that device can take it."""
    if not isinstance(tensor, DeviceTensor) or (tensor.device == device and is_aligned(tensor)):
        return tensor
    return tensor.to_host()
