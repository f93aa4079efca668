from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from device_runtime.tests.support import FLEET, ISSUED
from edgefleet.errors import StorageFullError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.pointer import Pointer
from edgefleet_runtime.reconciler import memory as mem

GOOD, NEW = digest_of(b"good"), digest_of(b"new")
POINTER = Pointer(fleet=FLEET, epoch=0, number=7, current=NEW, sources=(), issued=ISSUED)


def crashing(memory: mem.Memory, times: int) -> mem.Memory:
    for _ in range(times):
        memory = mem.started(memory)
    return memory


def test_a_release_that_crashes_while_it_serves_gives_way_to_the_last_good_one() -> None:
    before = mem.swapped(mem.Memory(pointer=POINTER, running=GOOD, good=GOOD), NEW)
    assert crashing(before, mem.MAX_CRASHES - 1).running == NEW
    after = crashing(before, mem.MAX_CRASHES)
    assert after.running == GOOD
    assert after.trial is None
    assert after.condemned is not None
    assert (after.condemned.release, after.condemned.number) == (NEW, 7)


def test_a_release_that_crashes_while_it_loads_is_given_up_and_the_running_one_stays() -> None:
    before = mem.tried(mem.Memory(pointer=POINTER, running=GOOD, good=GOOD), NEW)
    after = crashing(before, mem.MAX_CRASHES)
    assert after.running == GOOD
    assert after.condemned is not None
    assert after.condemned.release == NEW


def test_an_orderly_stop_is_no_crash() -> None:
    memory = mem.tried(mem.Memory(pointer=POINTER), NEW)
    for _ in range(10):
        memory = mem.started(replace(memory, stopped=True))
    assert memory.condemned is None
    assert memory.trial == mem.Trial(release=NEW)
    assert memory.starts == 10


def test_a_release_that_served_long_enough_never_counts_a_crash_again() -> None:
    memory = mem.proven(mem.swapped(mem.Memory(pointer=POINTER), NEW))
    assert memory.good == NEW
    assert crashing(memory, 10).running == NEW


def test_trying_the_same_release_again_keeps_its_count() -> None:
    memory = mem.started(mem.tried(mem.Memory(), NEW))
    assert mem.tried(memory, NEW).trial == mem.Trial(release=NEW, crashes=1)


def test_going_back_to_the_good_release_ends_the_trial() -> None:
    memory = mem.swapped(mem.Memory(running=GOOD, good=GOOD), NEW)
    assert mem.swapped(memory, GOOD).trial is None


def test_a_newer_pointer_gives_what_was_condemned_another_chance() -> None:
    memory = crashing(mem.tried(mem.Memory(pointer=POINTER), NEW), mem.MAX_CRASHES)
    assert mem.taken(memory, replace(POINTER, number=8)).condemned is None


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    memory = mem.swapped(mem.taken(mem.Memory(), POINTER), NEW)
    mem.MemoryFile(tmp_path).save(memory)
    assert mem.MemoryFile(tmp_path).load() == memory


def test_without_a_file_nothing_is_remembered(tmp_path: Path) -> None:
    assert mem.MemoryFile(tmp_path).load() == mem.Memory()


def test_an_unreadable_file_is_kept_aside(tmp_path: Path) -> None:
    (tmp_path / mem.FILE).write_bytes(b"\0\0\0")
    assert mem.MemoryFile(tmp_path).load() == mem.Memory()
    assert (tmp_path / "state.unreadable").read_bytes() == b"\0\0\0"


def test_a_full_disk_leaves_what_was_saved_last(tmp_path: Path) -> None:
    file = mem.MemoryFile(tmp_path)
    file.save(mem.Memory(starts=1))
    (tmp_path / f".{mem.FILE}.partial").symlink_to("/dev/full")
    with pytest.raises(StorageFullError):
        file.save(mem.Memory(starts=2))
    assert mem.MemoryFile(tmp_path).load().starts == 1
