"""Where a tensor lies in shared memory, as a request's parameters say, and the way in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.tensors import from_bytes, to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions

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
    regions: SystemRegions, placement: Placement, datatype: str, shape: Sequence[int], *, name: str
) -> NDArray[Any]:
    """The tensor that lies there.

    Raises:
        EdgeFleetError: no such region or bytes, or they don't fit datatype and shape.
    """
    data = regions.read(placement.region, placement.offset, placement.byte_size)
    return from_bytes(data, datatype, shape, name=name)


def put(
    regions: SystemRegions, placement: Placement, array: NDArray[Any], *, name: str
) -> dict[str, str | int]:
    """Lay an output there; returns what the answer says of it.

    Raises:
        EdgeFleetError: no such region or bytes, or it doesn't fit.
    """
    data = to_bytes(array, name=name)
    regions.write(placement.region, placement.offset, placement.byte_size, data)
    return placement.parameters(len(data))
