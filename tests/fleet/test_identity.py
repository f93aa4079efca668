"""One counter a fleet: no pair twice, none below what was seen, whatever is lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING

from edgefleet.errors import ConflictError
from edgefleet.identity import COUNTER_KEY, IDENTITY_KEY, fleet_id, take_pair
from edgefleet.interfaces.state import StateStore, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHER = "6f1e7a52-0c5d-4c0e-9d53-0c2a4f1b7f00"


class MemoryState(StateStore):
    """Documents in memory: the smallest state store there is."""

    provider = "memory"

    def __init__(self) -> None:
        self.documents: dict[str, tuple[int, bytes]] = {}
        self._lock, self._tags = Lock(), 0

    def _read(self, key: str) -> Stored | None:
        held = self.documents.get(key)
        return None if held is None else Stored(held[1], str(held[0]))

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        with self._lock:
            held = self.documents.get(key)
            if (None if held is None else str(held[0])) != expect:
                raise ConflictError(key)
            self._tags += 1
            self.documents[key] = (self._tags, data)
            return str(self._tags)

    def _delete(self, key: str, expect: str) -> None:
        with self._lock:
            held = self.documents.get(key)
            if held is None or str(held[0]) != expect:
                raise ConflictError(key)
            del self.documents[key]

    def _keys(self, prefix: str) -> Iterator[str]:
        return iter(sorted(key for key in self.documents if key.startswith(prefix)))


def test_the_first_number_is_one() -> None:
    assert take_pair(MemoryState(), seen=list) == (0, 1)


def test_no_two_takers_get_the_same_pair() -> None:
    state = MemoryState()
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: take_pair(state, seen=list), range(100)))
    assert sorted(taken) == [(0, number) for number in range(1, 101)]


def test_a_number_is_above_the_pointer_in_place_even_when_the_counter_lags() -> None:
    state = MemoryState()
    take_pair(state, seen=list)
    assert take_pair(state, floor=(2, 40), seen=list) == (2, 41)


def test_a_lost_counter_is_rebuilt_above_the_highest_pair_seen_in_a_new_epoch() -> None:
    state = MemoryState()
    assert take_pair(state, seen=lambda: [(0, 7), (1, 3)]) == (2, 4)
    assert COUNTER_KEY in state.documents


def test_everybody_gets_the_same_fleet_id() -> None:
    state = MemoryState()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: fleet_id(state, seen=list), range(20)))
    assert len(found) == 1


def test_a_lost_identity_is_recovered_from_the_channels() -> None:
    state = MemoryState()
    assert fleet_id(state, seen=lambda: [OTHER]) == OTHER
    assert IDENTITY_KEY in state.documents
