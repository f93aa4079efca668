"""What the spool survives: kills, power cuts, full disks, damaged files."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device_runtime.tests.spool.rig import MIB, Device, alarm, prediction, sample, window
from edgefleet.protocol.event import read_event
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.faults import VARIABLE
from edgefleet_runtime.spool.database import Database
from edgefleet_runtime.spool.room import folder_bytes

ROOT = Path(__file__).parents[3]


def fill(device: Device, count: int, filler: int = 400) -> None:
    for _ in range(0, count, 50):
        device.put(*(prediction(n % 10, 0.9, filler=filler) for n in range(50)))
        device.turn()


def taken_over(device: Device, root: Path) -> Device:
    """A new life of the device whose folder was copied to ``root``."""
    device.store.close()
    device.root = root
    device.open()
    return device


def is_open(device: Device) -> bool:
    return device.store.database is not None


def ids(device: Device) -> set[str]:
    """Of all events that wait."""
    assert device.store.database is not None
    sql = device.store.database.read
    return {
        read_event(row.event).id
        for part in device.store.parts
        for row in device.store.parts.rows(sql, part)
    }


def held(folder: Path) -> set[str]:
    """Ids of the events in a folder's segments."""
    found = set()
    for path in folder.glob("*"):
        with path.open("rb") as stream:
            found |= {event.id for event in read_segment(stream)}
    return found


# -------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("number", [1, 2, 3, 5, 9, 17, 40, 80, 130, 300, 600])
def test_a_process_killed_anywhere_loses_nothing_that_was_safe(tmp_path: Path, number: int) -> None:
    (tmp_path / "cloud").mkdir()
    child = subprocess.run(
        [sys.executable, "-m", "device_runtime.tests.spool.dying", tmp_path, str(number)],
        cwd=ROOT,
        env={**os.environ, VARIABLE: f"*:{number}"},
        stdout=subprocess.PIPE,
        check=False,
        timeout=300,
    )
    assert child.returncode == -signal.SIGKILL
    said = [line.partition(":")[::2] for line in child.stdout.decode().splitlines()]
    safe = {identity for _, identity in said}
    assert number < 40 or len(safe) > 40
    device = Device(tmp_path / "other")
    device = taken_over(device, tmp_path / "device" / "0")
    device.check()
    came = held(tmp_path / "cloud")
    on_the_way = held(device.root / "outgoing")
    lost = safe - came - on_the_way - ids(device)
    assert len(lost) <= sum(device.store.dropped.values())
    assert device.store.dropped["alarms"] == 0
    assert {identity for kind, identity in said if kind == "alarm"} <= ids(device)


# --------------------------------------------------------------------------------------- power cuts


def test_a_log_cut_anywhere_leaves_whole_turns(tmp_path: Path) -> None:
    device = Device(tmp_path / "device", 16 * MIB)  # the log isn't emptied meanwhile
    device.put(alarm("first"))
    device.store.database.empty_log()  # type: ignore[union-attr]
    for number in range(12):
        device.put(prediction(number, 0.9), prediction(number, 0.2), window(number))
        device.turn()
    log = (device.root / "spool.db-wal").read_bytes()
    page = device.store.budget.page
    ends = range(32, len(log) + 1, page + 24)
    found = []
    for end in sorted({*ends, *(end + 24 + page // 3 for end in ends), 5}):
        root = tmp_path / str(end)
        shutil.copytree(device.root, root)
        (root / "spool.db-wal").write_bytes(log[:end])
        cut = Device(tmp_path / f"{end}-new", 16 * MIB)
        taken_over(cut, root).check()
        found.append(sum(cut.store.waiting.values()))
        cut.store.close()
    assert found == sorted(found)
    assert set(found) == {1 + 3 * turns for turns in range(13)}


def test_a_batch_cut_off_before_it_was_named_is_made_again(tmp_path: Path) -> None:
    device = Device(tmp_path / "device")
    fill(device, 100)
    before = tmp_path / "before"
    shutil.copytree(device.root, before)
    batch = device.outgoing.batch(1 << 20, lean=False, everything=True)
    assert batch is not None
    shutil.copytree(device.root / "outgoing", before / "outgoing")
    taken_over(device, before)
    assert list((before / "outgoing").iterdir()) == []
    device.drain()
    assert device.arrived("prediction") == 100


def test_a_batch_goes_again_under_the_same_names_after_a_kill(tmp_path: Path) -> None:
    device = Device(tmp_path / "device")
    fill(device, 100)
    batch = device.outgoing.batch(1 << 20, lean=False, everything=True)
    assert batch is not None
    names = {segment.name: segment.path.read_bytes() for segment in batch.segments}
    device.killed()
    again = device.outgoing.batch(1 << 20, lean=False, everything=False)
    assert again is not None
    assert {segment.name: segment.path.read_bytes() for segment in again.segments} == names


def test_segments_stay_where_it_can_not_be_read_which_are_on_their_way(tmp_path: Path) -> None:
    device = Device(tmp_path / "device")
    fill(device, 100)
    assert device.outgoing.batch(1 << 20, lean=False, everything=True) is not None
    assert device.store.database is not None
    sql = device.store.database.read

    def unreadable(_action: int, table: str | None, *_: str | None) -> int:
        return sqlite3.SQLITE_DENY if table == "leaving" else sqlite3.SQLITE_OK

    sql.set_authorizer(unreadable)
    device.outgoing.recover()
    sql.set_authorizer(None)
    device.drain()
    assert device.arrived("prediction") == 100


def test_a_segment_that_is_gone_is_counted_as_dropped(tmp_path: Path) -> None:
    device = Device(tmp_path / "device")
    fill(device, 100)
    batch = device.outgoing.batch(1 << 20, lean=False, everything=True)
    assert batch is not None
    lost = sum(segment.events for segment in batch.segments if "digits" in segment.name)
    for segment in batch.segments:
        segment.path.unlink()
    device.killed()
    device.drain()
    assert device.arrived("prediction") == 100 - lost < 100
    assert device.counted("prediction") == (100, lost)
    assert device.store.dropped["damaged"] >= lost


# ---------------------------------------------------------------------------------------- full disk


@contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow any more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_alarms_go_on_and_the_rest_is_counted(tmp_path: Path) -> None:
    device = Device(tmp_path / "device")
    device.put(prediction(), alarm("before"))
    with full_disk():
        assert device.put(prediction(), prediction(), alarm("during")) == [False] * 3
        device.turn()
        hot = [event.payload() for event in device.send_hot(1)]
        assert [one.message for one in hot] == ["during"]  # type: ignore[union-attr]
        device.put(alarm("later"))
        device.turn()
    device.turn(100)
    device.drain()
    assert device.counted("prediction") == (3, 2)
    assert device.counted("alarm") == (3, 0)
    assert device.arrived("alarm") == 3


def test_on_a_full_disk_no_segment_is_made_and_none_is_lost(tmp_path: Path) -> None:
    device = Device(tmp_path / "device")
    fill(device, 100)
    with full_disk():
        assert device.send() == 0
        device.turn()
    device.drain()
    assert device.arrived("prediction") == 100


def test_a_spool_that_can_not_be_opened_is_opened_once_it_can(tmp_path: Path) -> None:
    root = tmp_path / "device"
    device = Device(root)
    device.store.close()
    database = Database(device.root / "spool.db", device.store.budget)
    with database.change():
        pass  # somebody else has it
    device.open()
    assert not is_open(device)
    device.put(alarm("meanwhile"))
    assert [event.kind for event in device.send_hot()] == ["alarm"]
    database.close()
    device.turn(60)
    assert is_open(device)
    device.drain()
    assert device.counted("alarm") == (1, 0)


# ------------------------------------------------------------------------------------------ damage


def damage(device: Device, page: int, *, length: int = 200) -> None:
    """Flip bytes of a page of the closed database."""
    device.damaged = True
    device.store.close()
    path = device.root / "spool.db"
    size = struct.unpack(">H", path.read_bytes()[16:18])[0]
    data = bytearray(path.read_bytes())
    start = (page - 1) * size
    for at in range(start, min(start + length, len(data))):
        data[at] ^= 0x5A
    path.write_bytes(data)


def full_device(root: Path) -> Device:
    device = Device(root, 2 * MIB)
    device.put(*(alarm(str(n)) for n in range(40)), *(sample(n) for n in range(20)))
    fill(device, 1000, filler=600)
    return device


@pytest.mark.parametrize("page", [1, 2, 3, 5, 8, 13, 40, 120, 300, 500, 700])
def test_a_damaged_page_costs_little_is_counted_and_the_spool_goes_on(
    tmp_path: Path, page: int
) -> None:
    device = full_device(tmp_path / "device")
    before = sum(device.store.waiting.values())
    damage(device, page)
    device.open()
    device.check()
    device.drain()
    device.turn(finish=True)
    device.drain()
    arrived = device.arrived("prediction") + device.arrived("alarm") + device.arrived("sample")
    assert set(device.came) <= set(device.put_)
    if page == 1:  # says what kind of file it is
        assert [repair.saved for repair in device.store.repairs] == [0]
        return
    assert arrived + sum(device.store.dropped.values()) >= before
    seen, dropped = device.counted("prediction")
    assert seen - dropped == device.arrived("prediction")
    device.put(prediction())
    device.drain()
    assert device.arrived("prediction") == seen - dropped + 1


def test_a_repair_saves_nearly_everything_and_keeps_the_cap(tmp_path: Path) -> None:
    device = full_device(tmp_path / "device")
    before = sum(device.store.waiting.values())
    damage(device, 400)
    device.open()
    device.drain()
    device.turn()
    [repair] = device.store.repairs
    assert repair.lost is not None
    assert repair.saved + repair.lost + len(device.came) >= before > 900
    assert repair.lost < 100
    assert device.arrived("alarm") == 40


def test_a_damaged_first_page_costs_what_waits_and_its_counts_but_not_what_was_told(
    tmp_path: Path,
) -> None:
    device = Device(tmp_path / "device")
    device.put(*(prediction() for _ in range(30)))
    device.drain()
    device.put(*(prediction() for _ in range(20)))
    damage(device, 1)
    device.open()
    assert [(repair.saved, repair.lost) for repair in device.store.repairs] == [(0, None)]
    device.put(*(prediction() for _ in range(10)))
    device.drain()
    assert device.arrived("prediction") == 40
    assert sorted(account.tallies[0].seen for account in device.accounts.values()) == [10, 30]


def test_a_foreign_file_is_set_aside_and_the_spool_begins_anew(tmp_path: Path) -> None:
    device = Device(tmp_path / "device")
    device.store.close()
    path = device.root / "spool.db"
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs(x)")
    other.commit()
    other.close()
    device.open()
    assert (device.root / "quarantine" / "spool.db").exists()
    assert len(device.store.repairs) == 1
    device.put(alarm())
    assert len(device.send_hot()) == 1


def test_a_repair_that_was_killed_is_finished_by_the_next_process(tmp_path: Path) -> None:
    device = full_device(tmp_path / "device")
    damage(device, 400)
    program = (
        "import sys; from pathlib import Path;"
        "from edgefleet.protocol.policy import WorthPolicy;"
        "from edgefleet_runtime.spool.budget import share_out;"
        "from edgefleet_runtime.spool.repair import Repair;"
        "Repair.run(Path(sys.argv[1]), share_out(2 << 20), WorthPolicy())"
    )
    for fault in ("spool.saved", "spool.set-aside", "spool.restored"):
        child = subprocess.run(
            [sys.executable, "-c", program, device.root],
            cwd=ROOT,
            env={**os.environ, VARIABLE: fault},
            check=False,
            timeout=300,
            capture_output=True,
        )
        assert child.returncode == -signal.SIGKILL, child.stderr.decode()
        assert folder_bytes(device.root) <= 2 * MIB
    device.open()
    device.check()
    device.drain()
    assert device.arrived("alarm") == 40
    assert device.arrived("prediction") > 800
