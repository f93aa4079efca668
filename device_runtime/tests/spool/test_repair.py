"""What a repair finds besides damaged pages: counts, texts and files that can't be right."""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from device_runtime.tests.spool.rig import MIB, Device, alarm, prediction, sample
from edgefleet.errors import IntegrityError
from edgefleet_runtime.spool.database import Database
from edgefleet_runtime.spool.repair import SAVED
from edgefleet_runtime.spool.store import Store
from edgefleet_runtime.sync.outgoing import Segment

INTERIOR = 5  # page of a table that holds no rows; https://www.sqlite.org/fileformat2.html, 1.6


def changed(device: Device, *statements: str) -> None:
    """Open a device's spool after somebody wrote into its file what the spool never does."""
    device.damaged = True
    device.store.close()
    sql = sqlite3.connect(device.root / "spool.db", isolation_level=None)
    for statement in statements:
        assert sql.execute(statement).rowcount > 0
    sql.close()
    device.open()


def goes_on(device: Device) -> None:
    """It takes, sends and counts what comes now."""
    before = device.arrived("prediction")
    device.put(prediction(), alarm("after"))
    device.turn(100)
    device.drain()
    device.turn(finish=True)
    assert device.arrived("prediction") > before
    assert "after" in [data.message for data in device.told if hasattr(data, "message")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE tally SET model=CAST(x'ff80' AS TEXT)",
        "UPDATE tally SET seen='many'",
        "UPDATE tally SET top=x'00'",
        "UPDATE tally SET band=77 WHERE band=9",
        "UPDATE day SET changed='so'",
        "UPDATE day SET spool=x'00'",
        "UPDATE meta SET value=CAST(x'ff80' AS TEXT) WHERE key='spool'",
        "UPDATE meta SET value='far' WHERE key='next'",
        "UPDATE shelf SET door=x'00'",
        "UPDATE leaving SET file=CAST(x'ff80' AS TEXT)",
        "UPDATE leaving_tally SET events='some'",
    ],
)
def test_a_count_that_can_not_be_right_begins_anew_and_what_waits_is_saved(
    tmp_path: Path, statement: str
) -> None:
    device = Device(tmp_path)
    device.put(prediction(filler=MIB), *(alarm(str(n)) for n in range(20)))
    device.put(*(prediction() for _ in range(30)))
    device.turn(100, finish=True)
    device.outgoing.batch(2000, lean=False, everything=True)
    waiting = sum(device.store.waiting.values())
    changed(device, statement)
    assert [(repair.saved, repair.lost) for repair in device.store.repairs] == [(waiting, None)]
    goes_on(device)
    assert device.arrived("alarm") == 21


@pytest.mark.parametrize("column", ["events", "bytes", "upto"])
def test_how_much_waits_is_counted_again_where_it_can_not_be_right(
    tmp_path: Path, column: str
) -> None:
    device = Device(tmp_path)
    device.put(*(prediction() for _ in range(30)))
    device.turn(100, finish=True)
    changed(device, f"UPDATE part SET {column}='some'")
    assert [(repair.saved, repair.lost) for repair in device.store.repairs] == [(30, 0)]
    goes_on(device)
    assert device.counted("prediction") == (31, 0)


def test_a_row_that_nothing_counts_is_lost_alone_when_its_level_goes(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.put(*(sample(n) for n in range(20)))
    while not device.store.dropped["ordinary"]:
        device.put(*(prediction(filler=600) for _ in range(20)))
        device.turn()
    low = device.store.parts.lowest()
    assert low is not None
    changed(
        device, f"UPDATE {low.table} SET tally='none' WHERE id=(SELECT min(id) FROM {low.table})"
    )
    for _ in range(20):
        device.put(*(prediction(filler=600) for _ in range(50)))
        device.turn()
    assert [repair.lost for repair in device.store.repairs] == [1]
    device.drain()
    seen, dropped = device.counted("prediction")
    assert seen - dropped == device.arrived("prediction")
    assert device.arrived("sample") == 20


def test_no_segments_name_is_given_twice_whatever_a_repair_lost(tmp_path: Path) -> None:
    device = Device(tmp_path)
    names: list[str] = []
    upload: Callable[[Segment], None] = device.upload

    def noted(segment: Segment) -> None:
        names.append(segment.name)
        upload(segment)

    device.upload = noted  # type: ignore[method-assign]
    for count in (10, 9, 8):
        device.put(*(prediction() for _ in range(count)))
        device.drain()
        device.store.trouble(IntegrityError("a page that was empty"))
        device.outgoing.recover()
        device.killed()
    assert len(names) == 6
    assert len(set(names)) == 6
    assert device.arrived("prediction") == 27


def test_an_id_that_was_told_means_no_other_event_after_a_repair(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.put(*(alarm(str(n)) for n in range(3)))
    on_the_way = [number for number, _ in device.outgoing.hot(10, MIB)]
    assert device.store.database is not None
    device.store.database.read.execute("DELETE FROM at_alarms_0")
    device.store.database.read.execute("DELETE FROM meta")
    device.store.trouble(IntegrityError("a page of alarms"))
    device.put(*(alarm(f"later {n}") for n in range(3)))
    device.outgoing.hot_sent(on_the_way)
    assert len(device.send_hot()) == 3


def with_a_page_in_two_places(root: Path) -> Device:
    """A device with 300 events: one part of their table is read twice, another not at all."""
    device = Device(root, 2 * MIB)
    device.put(*(prediction(filler=100) for _ in range(300)))
    assert device.store.database is not None
    sql, page = device.store.database.read, device.store.database.page
    [[number]] = sql.execute("SELECT rootpage FROM sqlite_master WHERE name='at_ordinary_new'")
    device.store.close()
    path = device.root / "spool.db"
    data = bytearray(path.read_bytes())
    start = (number - 1) * page
    assert data[start] == INTERIOR
    first, second = struct.unpack_from(">HH", data, start + 12)
    data[start + second : start + second + 4] = data[start + first : start + first + 4]
    path.write_bytes(data)
    device.damaged = True
    device.open()
    return device


def test_a_page_that_lies_in_two_places_is_saved_once(tmp_path: Path) -> None:
    device = with_a_page_in_two_places(tmp_path)
    device.store.trouble(IntegrityError("another page"))
    [repair] = device.store.repairs
    assert 150 < repair.saved < 300
    assert repair.lost == 300 - repair.saved
    goes_on(device)
    assert device.arrived("prediction") == repair.saved + 1


def test_a_page_that_lies_in_two_places_is_noticed_when_its_rows_are_sorted(tmp_path: Path) -> None:
    device = with_a_page_in_two_places(tmp_path)
    store = device.store
    for _ in range(40):
        events = [device.event(prediction(filler=600)) for _ in range(50)]
        device.put_ |= {event.id: event.kind for event in events}
        store.put([store.rater.entry(event) for event in events])
        if store.repairs:
            break
    assert len(store.repairs) == 1
    goes_on(device)
    seen, dropped = device.counted("prediction")
    assert seen - dropped == device.arrived("prediction")


def test_damage_that_shows_while_room_is_made_costs_no_event_that_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    device.put(*(prediction() for _ in range(30)))
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    failing: dict[str, list[Exception]] = {
        "_fit": [full],
        "_drop_lowest": [IntegrityError("a page")],
    }

    def failing_once(name: str) -> None:
        real = getattr(Store, name)

        def method(*given: object) -> object:
            if failing[name]:
                raise failing[name].pop()
            return real(*given)

        monkeypatch.setattr(Store, name, method)

    failing_once("_fit")
    failing_once("_drop_lowest")
    limit = Store._limit
    monkeypatch.setattr(Store, "_limit", lambda *given: given[2] and limit(*given))
    monkeypatch.setattr(Database, "free_pages", 0)
    assert device.put(prediction(), alarm()) == [True, True]
    assert not any(failing.values())
    assert [(repair.saved, repair.lost) for repair in device.store.repairs] == [(30, 0)]


def test_what_a_killed_process_had_begun_to_save_takes_no_room(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.put(*(prediction() for _ in range(30)))
    (device.root / f".{SAVED}.partial").write_bytes(bytes(MIB // 2))
    device.killed()
    assert not (device.root / f".{SAVED}.partial").exists()
    assert sum(device.store.waiting.values()) == 30


def test_a_repair_of_which_the_log_stays_full_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    device.put(*(prediction() for _ in range(30)))
    with monkeypatch.context() as patch:

        def full(database: Database) -> None:
            raise sqlite3.OperationalError(f"{database.path.name}: disk I/O error")

        patch.setattr(Database, "empty_log", full)
        device.damaged = True
        device.store.trouble(IntegrityError("a page"))
        assert device.store.database is None
        assert (device.root / SAVED).exists()
    device.turn(100)
    assert [(repair.saved, repair.lost) for repair in device.store.repairs] == [(30, 0)]


def saved(device: Device, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What a repair that didn't come to its end has saved."""
    with monkeypatch.context() as patch:

        def fail(*_: object) -> None:
            raise OSError(os.strerror(5))

        patch.setattr("edgefleet_runtime.spool.repair._set_aside", fail)
        device.store.trouble(IntegrityError("a page"))
    return (device.root / SAVED).read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-20] + bytes(20),
        lambda data: data[:-20],
        lambda data: data + bytes(10_000),
        lambda _: b"no zstd",
        lambda _: b"",
    ],
    ids=["end", "cut", "more", "other", "empty"],
)
def test_a_repair_whose_own_file_is_damaged_begins_with_nothing_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[bytes], bytes]
) -> None:
    device = Device(tmp_path)
    device.put(*(prediction(filler=100) for _ in range(30)))
    spoilt = spoil(saved(device, monkeypatch))
    (device.root / SAVED).write_bytes(spoilt)
    device.killed()
    assert [(repair.saved, repair.lost) for repair in device.store.repairs] == [(0, None)]
    goes_on(device)


def test_whichever_byte_of_a_repair_s_own_file_is_damaged_no_other_counts_come_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    device.put(*(prediction(number % 7, filler=number) for number in range(30)))
    data = saved(device, monkeypatch)
    for place in range(0, len(data), len(data) // 50):
        spoilt = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        (device.root / SAVED).write_bytes(spoilt)
        device.killed()
        [repair] = device.store.repairs
        assert (repair.saved, repair.lost) in {(0, None), (30, 0)}, f"byte {place} of {len(data)}"
        if repair.saved:
            assert device.store.waiting["ordinary"] == 30
    goes_on(device)
