from __future__ import annotations

import resource
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.errors import ConflictError, InvalidInputError, StorageFullError
from edgefleet_local.state import DirectoryStateStore
from providers.local.tests.support import cut_at_every_point, elsewhere

INCREMENTS = 25
OLD, NEW = b"old" * 1000, b"new" * 5000
KEY = "groups/line-3.json"
Step = Callable[[Path], None]


def _count(home: Path) -> None:
    store, done = DirectoryStateStore(home), 0
    while done < INCREMENTS:
        try:
            store.update("counter", lambda data: b"%d" % (int(data or b"0") + 1))
        except ConflictError:
            continue
        done += 1


def test_updates_by_several_processes_lose_none(home: Path) -> None:
    elsewhere(_count, home, workers=3)
    stored = DirectoryStateStore(home).read("counter")
    assert stored is not None
    assert stored.data == b"%d" % (3 * INCREMENTS)


def _create(home: Path) -> bool:
    try:
        DirectoryStateStore(home).write("fleet", b"mine", expect=None)
    except ConflictError:
        return False
    return True


def test_of_several_processes_one_creates(home: Path) -> None:
    assert sorted(elsewhere(_create, home, workers=3)) == [False, False, True]


def _nothing(home: Path) -> None:
    home.mkdir(parents=True)


def _write_old(home: Path) -> None:
    DirectoryStateStore(home).write(KEY, OLD, expect=None)


def _write_new(home: Path) -> None:
    store = DirectoryStateStore(home)
    stored = store.read(KEY)
    store.write(KEY, NEW, expect=None if stored is None else stored.tag)


def _delete(home: Path) -> None:
    store = DirectoryStateStore(home)
    stored = store.read(KEY)
    assert stored is not None
    store.delete(KEY, expect=stored.tag)


def _is_none_or_new(home: Path) -> None:
    _is_one_of(home, (None, NEW))


def _is_old_or_new(home: Path) -> None:
    _is_one_of(home, (OLD, NEW))


def _is_old_or_none(home: Path) -> None:
    _is_one_of(home, (OLD, None))


def _is_one_of(home: Path, allowed: tuple[bytes | None, ...]) -> None:
    store = DirectoryStateStore(home)
    stored = store.read(KEY)
    assert (None if stored is None else stored.data) in allowed
    assert list(store.keys("groups/")) == ([] if stored is None else [KEY])
    _write_new(home)  # nothing stands in the way of the next writer
    stored = store.read(KEY)
    assert stored is not None
    assert stored.data == NEW


@pytest.mark.parametrize(
    "prepare, work, check",
    [
        (_nothing, _write_new, _is_none_or_new),
        (_write_old, _write_new, _is_old_or_new),
        (_write_old, _delete, _is_old_or_none),
    ],
    ids=["create", "replace", "delete"],
)
def test_a_writer_killed_anywhere_leaves_the_old_or_the_new(
    home: Path, prepare: Step, work: Step, check: Step
) -> None:
    (points,) = elsewhere(cut_at_every_point, home, prepare, work, check)
    assert points >= 5


def _write_without_room(home: Path) -> str:
    store = DirectoryStateStore(home)
    tag = store.write("doc", OLD, expect=None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    with pytest.raises(StorageFullError) as caught:
        store.write("doc", NEW, expect=tag)
    return str(caught.value)


def test_without_room_the_old_document_stays(home: Path) -> None:
    (told,) = elsewhere(_write_without_room, home)
    assert "cure: " in told
    stored = DirectoryStateStore(home).read("doc")
    assert stored is not None
    assert stored.data == OLD
    assert list((home / "partial").iterdir()) == []


def test_a_document_and_a_folder_of_one_name_are_refused(home: Path) -> None:
    store = DirectoryStateStore(home)
    store.write("a/b", b"", expect=None)
    for key in ("a", "a/b/c"):
        assert store.read(key) is None
        with pytest.raises(InvalidInputError, match="different names"):
            store.write(key, b"", expect=None)
    assert list(store.keys("a/")) == ["a/b"]


def test_readers_need_no_lock(home: Path) -> None:
    store = DirectoryStateStore(home)
    store.write("doc", OLD, expect=None)
    read = threading.Event()

    def change(data: bytes | None) -> bytes:
        if store.read("doc") is not None and list(store.keys("a/")) == []:
            read.set()
        return data or b""

    store.update("doc", change)
    assert read.is_set()
