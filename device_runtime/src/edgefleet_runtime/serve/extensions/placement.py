"""Where a tensor lies in shared memory, as a request's parameters say, and the way in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.engines.device_memory import DeviceTensor, is_aligned

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


def run_placed(
    served: ServedModel,
    inputs: Mapping[str, Any],
    wanted: tuple[str, ...] | None,
    places: Mapping[str, Placement | None],
    memory: SharedMemory | None,
    *,
    watched: bool,
) -> tuple[dict[str, Any], float]:
    """Run a model on tensors of which some may lie on a GPU.

    They stay there where the model runs on the same GPU and nobody else looks at them; else they
    are copied to the host first.

    Args:
        served: the model, leased.
        inputs: as `take` gave them.
        wanted: outputs, as of `ServedModel.infer`.
        places: where outputs go to.
        memory: the shared memory; None where that is off.
        watched: whether somebody is told of outputs.

    Returns:
        Outputs and run time in microseconds, as of `ServedModel.infer`.
    """
    placed = any(isinstance(tensor, DeviceTensor) for tensor in inputs.values())
    if memory is None or not (placed or memory.uses_gpu):
        return served.infer(inputs, wanted)
    device = None if watched or served.watchers else served.model.device
    near: set[str] = set()
    if device is not None:
        for name, place in places.items():
            if place is not None and memory.device_of(place.region) == device:
                near.add(name)
    fed = {
        name: tensor.to_host()
        if isinstance(tensor, DeviceTensor) and not (tensor.device == device and is_aligned(tensor))
        else tensor
        for name, tensor in inputs.items()
    }
    if near or any(isinstance(tensor, DeviceTensor) for tensor in fed.values()):
        return served.infer(fed, wanted, near=near)
    return served.infer(fed, wanted)
