"""The roster: what is read, what is held, and what the bell has it read again."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from edgefleet.errors import ConflictError, NotFoundError
from edgefleet.protocol.documents import encode
from edgefleet_gateway import roster as roster_module
from edgefleet_gateway.records import KEPT_CHANGES, Bell, Keys, ReportRecord
from edgefleet_gateway.roster import READERS, Roster, utc_now
from edgefleet_local.state import DirectoryStateStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.interfaces.state import Stored

KEYS = Keys("edgefleet")
PATIENCE_S = 30.0


class Counting(DirectoryStateStore):
    """Tells what was read, and lets records be read only when several are asked for at once."""

    def __init__(self, home: Path, *, together: int = 1) -> None:
        super().__init__(home)
        self.read_keys: list[str] = []
        self._together = threading.Barrier(together)

    def _read(self, key: str) -> Stored | None:
        self.read_keys.append(key)
        if key.startswith(KEYS.devices) and self._together.parties > 1:
            self._together.wait(PATIENCE_S)
        return super()._read(key)

    def records_read(self) -> list[str]:
        """Names of devices whose records were read since this was asked last."""
        found = [key for key in self.read_keys if key.startswith(KEYS.devices)]
        self.read_keys.clear()
        return [key.removeprefix(KEYS.devices).removesuffix(".json") for key in found]


@pytest.fixture
def counting(home: Path) -> Counting:
    return Counting(home)


@pytest.fixture
def roster(counting: Counting) -> Roster:
    return Roster(lambda: counting, KEYS)


@pytest.fixture
def other(store: DirectoryStateStore) -> Roster:
    """Another operator's."""
    return Roster(lambda: store, KEYS)


def test_a_second_listing_reads_what_changed_alone(
    roster: Roster, other: Roster, counting: Counting
) -> None:
    for name in ("a", "b", "c"):
        other.enroll(name, "line-3", {})
    assert list(roster.devices()) == ["a", "b", "c"]
    assert sorted(counting.records_read()) == ["a", "b", "c"]
    other.label("b", {"site": "x"})
    other.retire("c")
    other.enroll("d", "line-4", {})
    found = roster.devices()
    assert sorted(counting.records_read()) == ["b", "d"]
    assert found["b"].labels == {"site": "x"}
    assert {name: one.group for name, one in found.items()} == {
        "a": "line-3", "b": "line-3", "d": "line-4",
    }  # fmt: skip
    roster.devices()
    assert counting.records_read() == []


def test_whoever_missed_changes_reads_all_again(
    roster: Roster, other: Roster, counting: Counting
) -> None:
    other.enroll("a", "line-3", {})
    roster.devices()
    counting.records_read()
    for _ in range(2):
        other.ring(*(f"pointer/g-{number}" for number in range(KEPT_CHANGES)))
    roster.devices()
    assert counting.records_read() == ["a"]


def test_a_bell_that_began_anew_is_not_believed(
    roster: Roster, other: Roster, store: DirectoryStateStore, counting: Counting
) -> None:
    for name in ("a", "b"):
        other.enroll(name, "line-3", {})
    roster.devices()
    counting.records_read()
    store.update(KEYS.bell, lambda _: encode(Bell()))
    roster.devices()
    assert sorted(counting.records_read()) == ["a", "b"]


def test_nothing_is_believed_for_long(
    roster: Roster,
    other: Roster,
    counting: Counting,
    store: DirectoryStateStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = other.enroll("a", "line-3", {})
    roster.devices()
    revoked = encode(msgspec.structs.replace(made, revoked=True))
    store.update(KEYS.device("a"), lambda _: revoked)  # by one who was killed before ringing
    assert not roster.devices()["a"].revoked
    monkeypatch.setattr(roster_module, "BELIEVED_S", -1.0)
    assert roster.devices()["a"].revoked


def test_many_are_read_at_once(home: Path, other: Roster) -> None:
    names = [f"d-{number:02}" for number in range(READERS)]
    for name in names:
        other.enroll(name, "line-3", {})
    counting = Counting(home, together=READERS)
    assert list(Roster(lambda: counting, KEYS).devices()) == names


def test_reports_come_in_the_order_they_were_asked_for(
    roster: Roster, store: DirectoryStateStore
) -> None:
    said = ReportRecord(report=b"{}", came=utc_now())
    store.write(KEYS.report("b"), encode(said), expect=None)
    assert list(roster.reports(("a", "b", "c"))) == [None, said, None]


def test_an_edit_rings_the_bell_after_the_document(roster: Roster, home: Path) -> None:
    roster.enroll("a", "line-3", {})
    before = roster.bell()
    assert before.changes[-1] == (before.number, "device/a")
    written: list[str] = []

    class Telling(Counting):
        def _write(self, key: str, data: bytes, expect: str | None) -> str:
            written.append(key)
            return super()._write(key, data, expect)

    telling = Telling(home)
    Roster(lambda: telling, KEYS).label("a", {"site": "x"})
    assert written == [KEYS.device("a"), KEYS.bell]
    roster.enroll("a", "line-3", {})  # who did it before may have been killed before ringing
    assert roster.bell().number == before.number + 2


def test_a_group_stays_without_devices_and_pointers_make_groups(
    roster: Roster, store: DirectoryStateStore
) -> None:
    roster.enroll("a", "line-3", {})
    roster.retire("a")
    store.write(f"{KEYS.groups}line-4", b"a pointer", expect=None)
    assert roster.groups() == ["line-3", "line-4"]
    assert roster.has_group("line-3")
    assert roster.has_group("line-4")
    assert not roster.has_group("line-5")


def test_retiring_leaves_nothing_and_a_new_device_of_that_name_finds_nothing(
    roster: Roster, store: DirectoryStateStore
) -> None:
    roster.enroll("a", "line-3", {})
    for key in (KEYS.report("a"), KEYS.request("a", "0" * 32), KEYS.answer("a", "0" * 32)):
        store.write(key, b"{}", expect=None)
    roster.retire("a")
    assert sorted(store.keys("edgefleet/")) == [KEYS.bell, KEYS.group("line-3")]
    store.write(KEYS.report("a"), b"{}", expect=None)  # a gateway that hadn't looked yet
    roster.enroll("a", "line-4", {})
    assert roster.report("a") is None


def test_what_the_device_said_of_itself_can_be_removed(roster: Roster) -> None:
    roster.enroll("a", "line-3", {"site": "x"})
    roster.change("a", lambda there: msgspec.structs.replace(there, said={"cpu": "arm"}))
    roster.label("a", {"cpu": None, "site": None})
    found = roster.find("a")
    assert found is not None
    assert (found.said, found.labels) == ({}, {})


def test_edits_of_what_is_not_there_or_elsewhere_are_refused(roster: Roster) -> None:
    with pytest.raises(NotFoundError):
        roster.change("a", lambda there: there)
    roster.enroll("a", "line-3", {})
    with pytest.raises(ConflictError, match="'line-3'"):
        roster.enroll("a", "line-4", {})
    assert roster.groups() == ["line-3"]  # nobody meant a group line-4


class Between(DirectoryStateStore):
    """Does something once, before a document is written or deleted."""

    def __init__(self, home: Path, *, before: str, do: Callable[[], object]) -> None:
        super().__init__(home)
        self._before: str | None = before
        self._do = do

    def _now(self, key: str) -> None:
        if key == self._before:
            self._before = None
            self._do()

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        self._now(key)
        return super()._write(key, data, expect)

    def _delete(self, key: str, expect: str) -> None:
        self._now(key)
        super()._delete(key, expect)


def test_a_device_that_comes_while_its_group_is_removed_keeps_it(home: Path, other: Roster) -> None:
    other.enroll("a", "line-3", {})
    other.retire("a")
    meanwhile = Between(
        home, before=KEYS.group("line-3"), do=lambda: other.enroll("b", "line-3", {})
    )
    assert Roster(lambda: meanwhile, KEYS).remove_group("line-3") == ("b",)
    assert other.has_group("line-3")
    assert other.groups() == ["line-3"]


def test_a_group_that_is_removed_before_its_device_is_written_is_there_again(
    home: Path, other: Roster
) -> None:
    removed: list[tuple[str, ...]] = []
    slow = Between(
        home,
        before=KEYS.device("b"),
        do=lambda: removed.append(other.remove_group("line-3")),
    )
    Roster(lambda: slow, KEYS).enroll("b", "line-3", {})
    assert removed == [()]
    assert other.groups() == ["line-3"]
    assert list(other.devices()) == ["b"]
