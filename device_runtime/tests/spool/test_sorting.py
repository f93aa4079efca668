"""What comes is put down unsorted while there is room, and is dropped by worth all the same."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from device_runtime.tests.spool.rig import MIB, Device, alarm, prediction, reading, window
from edgefleet.protocol.event import EventData, read_event
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.spool import sorting
from edgefleet_runtime.spool.worth import LEVELS, UNSORTED, Shelf


class Rated:
    """A device, and where each event that came to it belongs."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.device = Device(root, max_bytes)
        self.places: dict[str, tuple[Shelf, int]] = {}

    def put(self, *data: EventData) -> None:
        store = self.device.store
        entries = [store.rater.entry(self.device.event(each)) for each in data]
        self.places |= {entry.event.id: entry.place for entry in entries}
        store.put(entries)
        self.device.put_ |= {entry.event.id: entry.event.kind for entry in entries}
        self.device.check()

    def fill(self, count: int, batch: int = 50, filler: int = 400) -> None:
        for _ in range(0, count, batch):
            self.put(*(prediction(0, 0.9, filler=filler) for _ in range(batch)))
            self.device.turn()

    def waiting(self) -> dict[str, tuple[Shelf, int]]:
        """Events that wait, and the part where each does."""
        store = self.device.store
        assert store.database is not None
        return {
            read_event(row.event).id: (part.shelf, part.level)
            for part in store.parts
            for row in store.parts.rows(store.database.read, part)
        }

    def check_worth(self, shelf: Shelf = Shelf.ORDINARY) -> int:
        """What went from a shelf was worth less than all that stayed; returns how many went."""
        stayed = self.waiting()
        went = [p for i, p in self.places.items() if i not in stayed and p[0] is shelf]
        best = max(went, default=(shelf, UNSORTED))
        worse = {self.places[i] for i, (of, _) in stayed.items() if of is shelf} - {
            place for place in self.places.values() if place > best
        }
        assert not worse, best
        return len(went)

    def unsorted(self) -> int:
        parts = self.device.store.parts
        return sum(part.events for part in parts if part.level == UNSORTED)


def test_while_there_is_room_a_commit_adds_to_one_table_a_shelf(tmp_path: Path) -> None:
    rated = Rated(tmp_path, 16 * MIB)
    rated.put(*(prediction(0, 0.9) for _ in range(50)), *(window(n) for n in range(9)), alarm())
    parts = [(part.shelf, part.level, part.events) for part in rated.device.store.parts]
    assert parts == [
        (Shelf.ORDINARY, UNSORTED, 50),
        (Shelf.WINDOWS, UNSORTED, 9),
        (Shelf.ALARMS, 0, 1),
    ]


def test_all_is_sorted_before_anything_is_dropped(tmp_path: Path) -> None:
    rated = Rated(tmp_path, 2 * MIB)
    most = 0
    while not sum(rated.device.store.dropped.values()):
        most = max(most, rated.unsorted())
        rated.fill(50)
    assert most > 200
    assert rated.unsorted() == 0
    stayed = rated.waiting()
    assert all(rated.places[identity] == place for identity, place in stayed.items())
    assert rated.check_worth() > 0


@pytest.mark.parametrize("filler", [0, 400, 900, 3000])
def test_what_goes_is_worth_least_whatever_was_unsorted(tmp_path: Path, filler: int) -> None:
    rated = Rated(tmp_path, 2 * MIB)
    for _ in range(6):
        rated.fill(600, filler=filler)
        rated.device.killed()
    assert rated.check_worth() > 0


def test_one_put_of_more_than_fits_is_sorted_and_dropped_by_worth(tmp_path: Path) -> None:
    rated = Rated(tmp_path, 2 * MIB)
    rated.put(*(prediction(0, 0.9, filler=400) for _ in range(6000)))
    assert rated.check_worth() > 3000
    assert sum(rated.device.store.waiting.values()) > 500


@pytest.mark.parametrize("filler, count", [(0, 6000), (400, 3000), (2500, 900)])
def test_a_smaller_cap_drops_by_worth_what_was_unsorted(
    tmp_path: Path, filler: int, count: int
) -> None:
    rated = Rated(tmp_path, 32 * MIB)
    rated.fill(count, batch=300, filler=filler)
    assert rated.unsorted() == count
    assert not sum(rated.device.store.dropped.values())
    rated.device.max_bytes = 4 * MIB
    rated.device.store.follow(TelemetryPolicy(), 4 * MIB)
    rated.device.turn()
    assert rated.check_worth() > 0
    kept = sum(part.size for part in rated.device.store.parts)
    assert kept > MIB  # no more than a few levels too many


def test_what_is_unsorted_on_a_lower_shelf_goes_before_anything_of_a_higher(tmp_path: Path) -> None:
    rated = Rated(tmp_path, 2 * MIB)
    rated.put(*(reading(n) for n in range(300)))
    while not rated.device.store.dropped["hard"]:
        assert len(rated.places) < 3000
        rated.put(*(prediction(0, 0.1, filler=400) for _ in range(50)))
    assert rated.device.store.waiting["ordinary"] == 0
    rated.check_worth(Shelf.HARD)


def test_a_kill_between_two_steps_loses_nothing(tmp_path: Path) -> None:
    rated = Rated(tmp_path, 4 * MIB)
    rated.fill(1500, batch=300)
    steps = 0
    while rated.unsorted():
        before = rated.unsorted()
        rated.fill(10, batch=10)
        rated.device.killed()
        steps += rated.unsorted() < before
    assert steps > 1
    assert set(rated.waiting()) == set(rated.places)


def test_what_is_unsorted_is_sent_and_gives_its_room_back(tmp_path: Path) -> None:
    rated = Rated(tmp_path, 8 * MIB)
    rated.fill(700)
    assert rated.unsorted() == 700
    rated.device.drain()
    assert set(rated.device.came) == set(rated.places)
    assert rated.device.counted("prediction") == (700, 0)


def test_a_damaged_page_of_unsorted_rows_leaves_the_others_where_they_belong(
    tmp_path: Path,
) -> None:
    rated = Rated(tmp_path, 8 * MIB)
    rated.fill(1000)
    device = rated.device
    device.damaged = True
    device.store.close()
    path = device.root / "spool.db"
    data = bytearray(path.read_bytes())
    page = device.store.budget.page
    data[400 * page : 400 * page + 200] = bytes(200)
    path.write_bytes(data)
    device.open()
    device.check()
    assert len(device.store.repairs) == 1
    stayed = rated.waiting()
    assert 900 < len(stayed) < 1000
    assert all(rated.places[identity] == place for identity, place in stayed.items())
    assert device.store.dropped["damaged"] == 1000 - len(stayed)


def test_a_level_that_there_is_not_is_damage(tmp_path: Path) -> None:
    rated = Rated(tmp_path, 2 * MIB)
    rated.fill(100)
    device = rated.device
    device.store.close()
    with sqlite3.connect(device.root / "spool.db") as sql:
        sql.execute(f"UPDATE at_ordinary_new SET level={LEVELS} WHERE id=5")
    sql.close()
    device.open()
    rated.fill(1000)
    [repair] = device.store.repairs
    assert repair.lost == 1
    device.drain()
    seen, dropped = device.counted("prediction")
    assert (seen, seen - dropped) == (1100, device.arrived("prediction"))


def test_a_step_without_room_keeps_less_by_worth() -> None:
    rows = [(number, 1, 0, number % LEVELS, bytes(600)) for number in range(400)]
    assert sorting.door_for(rows, 0, 500, 4096) == 0
    door = sorting.door_for(rows, 0, 0, 4096)
    assert 0 < door < LEVELS
    assert sorting.door_for(rows, 0, 20, 4096) < door
    assert sorting.door_for(rows[:1], 0, 0, 4096) == 1
    assert sorting.door_for(rows[-1:], 0, 0, 4096) == LEVELS
