"""The fleet's own two documents: its identity and its counter, in the state store.

(epoch, number) comes from one counter a fleet, by compare-and-swap, before anything is sent. A lost
counter is rebuilt from the highest pair that anything of the fleet has seen, in a new epoch.
"""

from __future__ import annotations

import logging
import threading
import uuid
from typing import TYPE_CHECKING

from edgefleet.protocol.documents import Document, decode, encode
from edgefleet.protocol.pointer import FleetId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefleet.interfaces.state import StateStore

IDENTITY_KEY = "fleet/identity.json"
COUNTER_KEY = "fleet/counter.json"
_LOG = logging.getLogger(__name__)

Pair = tuple[int, int]


class Identity(Document, frozen=True, kw_only=True):
    """Which fleet this is."""

    fleet: FleetId


class Counter(Document, frozen=True, kw_only=True):
    """The last pair taken."""

    epoch: int
    number: int


def fleet_id(state: StateStore, *, seen: Callable[[], Iterable[str]], write: bool = True) -> str:
    """The fleet's UUID, made at the first call by whoever comes first.

    Args:
        state: the profile's state store.
        seen: gives UUIDs found in pointers already on the fleet's channels; asked only when the
            document is missing, so that a lost one is recovered rather than replaced.
        write: without it nothing is written: a new UUID is then for show.
    """
    stored = state.read(IDENTITY_KEY)
    if stored is not None:
        return decode(Identity, stored.data).fleet

    def choose() -> str:
        return min(set(seen()), default=str(uuid.uuid4()))

    if not write:
        return choose()

    def create(data: bytes | None) -> bytes:
        return encode(Identity(fleet=choose())) if data is None else data

    return decode(Identity, state.update(IDENTITY_KEY, create)).fleet


class Reserve:
    """Numbers taken in one go, for many edits at once; threads may share it.

    Args:
        fleet: the fleet's UUID.
        epoch: of the numbers.
        numbers: taken from the counter, ascending.
    """

    def __init__(self, fleet: str, epoch: int, numbers: Iterable[int]) -> None:
        self.fleet = fleet
        self._epoch = epoch
        self._left = iter(numbers)
        self._lock = threading.Lock()

    def take(self, floor: Pair) -> Pair | None:
        """The next pair; None where none is left, or it wouldn't be above ``floor``."""
        with self._lock:
            number = next(self._left, None)
        if number is None or (self._epoch, number) <= floor:
            return None
        return (self._epoch, number)


def take_pair(
    state: StateStore, *, floor: Pair = (0, 0), seen: Callable[[], Iterable[Pair]]
) -> Pair:
    """Take the fleet's next (epoch, number). Gaps are allowed, doubles are not.

    Args:
        state: the profile's state store.
        floor: the result is above this pair, whatever the counter says.
        seen: gives pairs found on channels, in records and in reports; asked only when the counter
            is missing.
    """
    epoch, numbers = take_pairs(state, 1, floor=floor, seen=seen)
    return (epoch, numbers[0])


def take_pairs(
    state: StateStore, count: int, *, floor: Pair = (0, 0), seen: Callable[[], Iterable[Pair]]
) -> tuple[int, range]:
    """Take so many numbers of one epoch at once; see `take_pair`."""

    def advance(data: bytes | None) -> bytes:
        if data is None:
            epoch, number = max([floor, *seen()])
            if (epoch, number) != (0, 0):
                _LOG.warning("the fleet's counter was lost; rebuilt above %s.%s", epoch, number)
                epoch += 1
        else:
            counter = decode(Counter, data)
            epoch, number = max(floor, (counter.epoch, counter.number))
        return encode(Counter(epoch=epoch, number=number + count))

    taken = decode(Counter, state.update(COUNTER_KEY, advance))
    return taken.epoch, range(taken.number - count + 1, taken.number + 1)


def group_key(deployer: str, group: str) -> str:
    """Where a group's record lies."""
    return f"groups/{deployer}/{group}.json"
