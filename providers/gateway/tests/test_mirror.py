"""What a gateway believes of the state store, for how long, and whom it wakes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from edgefleet.errors import UnavailableError
from edgefleet.protocol.documents import encode
from edgefleet_gateway import mirror
from edgefleet_gateway.mirror import AGAIN_S, KEPT_S, Mirror
from edgefleet_gateway.records import BELIEVED_S, KEPT_CHANGES, Bell
from edgefleet_local.state import DirectoryStateStore
from providers.gateway.tests.server_rig import Fleet

T = TypeVar("T")


class Rig:
    """A mirror whose looks and clock the test moves."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder)
        self.state = self.fleet.state
        self.now = 0.0
        self.mirror = Mirror(
            self.state, prefix=self.fleet.rig.settings.prefix, clock=lambda: self.now
        )

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something on an event loop, after a first look."""

        async def after_a_look() -> T:
            await self.mirror.look()
            return await work()

        try:
            return asyncio.run(after_a_look())
        finally:
            self.mirror.close()

    def reads(self, of: str) -> int:
        """How often a document was read."""
        return sum(of in key for key in self.state.reads)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_what_is_held_isn_t_read_again_before_the_bell_names_it(rig: Rig) -> None:
    rig.fleet.publish(number=1)

    async def work() -> None:
        first = await rig.mirror.pointer("line")
        for _ in range(100):
            assert await rig.mirror.pointer("line") == first
            await rig.mirror.look()
        assert rig.reads("pointers/line") == 1
        rig.fleet.publish(number=2)
        assert await rig.mirror.pointer("line") == first
        await rig.mirror.look()
        assert await rig.mirror.pointer("line") != first
        assert rig.reads("pointers/line") == 2

    rig.run(work)


def test_what_was_asked_for_twice_at_once_is_read_once(rig: Rig) -> None:
    rig.fleet.publish()

    async def work() -> None:
        await asyncio.gather(*(rig.mirror.pointer("line") for _ in range(50)))
        assert rig.reads("pointers/line") == 1

    rig.run(work)


def test_nothing_is_believed_for_long_though_no_bell_was_rung(rig: Rig) -> None:
    rig.fleet.rig.roster.enroll("cam-1", "line", {})

    async def work() -> None:
        await rig.mirror.device("cam-1")
        key = rig.fleet.rig.keys.device("cam-1")
        stored = rig.fleet.rig.state.read(key)
        assert stored is not None
        rig.fleet.rig.state.delete(key, expect=stored.tag)  # and whoever did it was killed
        rig.now += BELIEVED_S / 2
        assert await rig.mirror.device("cam-1") is not None
        rig.now += BELIEVED_S / 2
        assert await rig.mirror.device("cam-1") is None

    rig.run(work)


def ring(rig: Rig, edit: Callable[[Bell], Bell]) -> None:
    rig.fleet.rig.roster.change_bell(edit)


def test_more_changes_than_a_bell_keeps_forget_everything(rig: Rig) -> None:
    rig.fleet.publish(number=1)

    async def work() -> None:
        await rig.mirror.pointer("line")
        many = tuple((n, f"device/d{n}") for n in range(100, 100 + KEPT_CHANGES))
        ring(rig, lambda _: Bell(number=100 + KEPT_CHANGES, changes=many))
        await rig.mirror.look()
        await rig.mirror.pointer("line")
        assert rig.reads("pointers/line") == 2

    rig.run(work)


def test_a_bell_that_went_back_forgets_everything(rig: Rig) -> None:
    for number in range(1, 4):
        rig.fleet.publish(number=number)

    async def work() -> None:
        await rig.mirror.pointer("line")
        ring(rig, lambda _: Bell(number=1))
        await rig.mirror.look()
        await rig.mirror.pointer("line")
        assert rig.reads("pointers/line") == 2

    rig.run(work)


def test_a_change_that_comes_while_it_is_read_is_read_again(rig: Rig, tmp_path: Path) -> None:
    rig.fleet.publish(number=1)
    begun, go_on = threading.Event(), threading.Event()
    inner = rig.mirror._pointer

    def slow(group: str) -> object:
        found = inner(group)
        begun.set()
        go_on.wait(60)
        return found

    async def work() -> None:
        rig.mirror._pointer = slow  # type: ignore[assignment, method-assign]
        asked = asyncio.create_task(rig.mirror.pointer("line"))
        await asyncio.to_thread(begun.wait, 60)
        rig.fleet.publish(number=2)
        await rig.mirror.look()
        go_on.set()
        found = await asked
        assert found is not None
        assert b'"number":2' in found.body

    rig.run(work)


def test_while_the_store_is_away_what_is_held_is_served_however_old(rig: Rig) -> None:
    rig.fleet.publish()
    rig.fleet.rig.roster.enroll("cam-1", "line", {})

    async def work() -> None:
        pointer, device = await rig.mirror.pointer("line"), await rig.mirror.device("cam-1")
        rig.state.away = True
        await rig.mirror.look()
        rig.now += 1000 * BELIEVED_S
        assert await rig.mirror.pointer("line") == pointer
        assert await rig.mirror.device("cam-1") == device
        with pytest.raises(UnavailableError):
            await rig.mirror.pointer("other")

    rig.run(work)


def test_devices_that_come_and_go_leave_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet whose machines live for days, under new names, for years."""
    monkeypatch.setattr(mirror, "MAX_CHANGED", 50)

    async def work() -> None:
        for number in range(300):
            ring(rig, lambda _, n=number: Bell(number=2 * n + 1, waiting={f"d{n}": ("a",)}))  # type: ignore[misc]
            await rig.mirror.look()
            rig.mirror.forget(f"device/d{number}")
            await rig.mirror.device(f"d{number}")
            await rig.mirror.device("stays")
            assert not rig.mirror.newer(f"device/d{number}", rig.mirror.turn())
            rig.now += KEPT_S / 20
        assert len(rig.mirror._changed) <= 50
        assert len(rig.mirror._held) <= 22

    rig.run(work)


def test_what_is_asked_for_now_and_then_is_held_for_when_the_store_is_away(rig: Rig) -> None:
    rig.fleet.rig.roster.enroll("cam-1", "line", {})

    async def work() -> None:
        device = await rig.mirror.device("cam-1")
        for _ in range(5):
            rig.now += KEPT_S * 0.9
            await rig.mirror.look()
            assert await rig.mirror.device("cam-1") == device
        rig.state.away = True
        await rig.mirror.look()
        rig.now += 3 * KEPT_S
        assert await rig.mirror.device("cam-1") == device
        rig.state.away = False
        await rig.mirror.look()
        rig.state.away = True
        assert await rig.mirror.device("cam-1") == device

    rig.run(work)


def test_a_change_that_isn_t_remembered_any_more_is_believed_of_everything(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "MAX_CHANGED", 3)

    async def work() -> None:
        rig.mirror.forget("device/first")
        before = rig.mirror.turn()
        rig.mirror.forget("device/second")
        for number in range(3):
            rig.mirror.forget(f"device/d{number}")
        assert rig.mirror.newer("device/second", before)
        assert not rig.mirror.newer("device/second", rig.mirror.turn())

    rig.run(work)


def test_a_store_that_goes_away_between_two_looks_is_noted_by_a_read(rig: Rig) -> None:
    rig.fleet.publish()

    async def work() -> None:
        pointer = await rig.mirror.pointer("line")
        rig.now += BELIEVED_S
        rig.state.away = True
        assert await rig.mirror.pointer("line") == pointer
        assert rig.mirror.away_since == rig.now

    rig.run(work)


def test_a_device_that_the_bell_named_isn_t_believed_while_the_store_is_away(rig: Rig) -> None:
    rig.fleet.rig.roster.enroll("cam-1", "line", {})

    async def work() -> None:
        await rig.mirror.device("cam-1")
        rig.fleet.rig.roster.change(
            "cam-1", lambda there: msgspec.structs.replace(there, revoked=True)
        )
        await rig.mirror.look()
        rig.state.away = True
        with pytest.raises(UnavailableError):
            await rig.mirror.device("cam-1")

    rig.run(work)


def test_a_store_whose_bell_is_gone_is_away_and_not_empty(rig: Rig, tmp_path: Path) -> None:
    rig.fleet.publish()
    rig.fleet.rig.roster.enroll("cam-1", "line", {})

    async def work() -> None:
        device = await rig.mirror.device("cam-1")
        (tmp_path / "fleet").rename(tmp_path / "not mounted")
        assert isinstance(rig.fleet.rig.state, DirectoryStateStore)
        with pytest.raises(UnavailableError):
            await rig.mirror.device("cam-2")
        rig.now += BELIEVED_S
        assert await rig.mirror.device("cam-1") == device
        await rig.mirror.look()
        assert rig.mirror.away_since is not None
        (tmp_path / "not mounted").rename(tmp_path / "fleet")
        await rig.mirror.look()
        assert rig.mirror.away_since is None

    rig.run(work)


def test_a_certificate_that_is_refused_is_looked_up_now_and_then(rig: Rig) -> None:
    rig.fleet.rig.roster.enroll("cam-1", "line", {})

    async def work() -> None:
        await rig.mirror.device("cam-1")
        for _ in range(20):
            await rig.mirror.device_again("cam-1", "an old one")
        assert rig.reads("devices/cam-1") == 2
        await rig.mirror.device_again("cam-1", "another one")
        assert rig.reads("devices/cam-1") == 3
        rig.now += AGAIN_S
        await rig.mirror.device_again("cam-1", "an old one")
        assert rig.reads("devices/cam-1") == 4

    rig.run(work)


def test_who_waits_is_woken_by_its_topics_alone(rig: Rig) -> None:
    rig.fleet.publish(number=1)

    async def work() -> None:
        turn = rig.mirror.turn()
        one = asyncio.create_task(rig.mirror.news(("pointer/line", "device/cam-1"), turn, 60))
        other = asyncio.create_task(rig.mirror.news(("pointer/other",), turn, 60))
        await asyncio.sleep(0)
        rig.fleet.publish(number=2)
        await rig.mirror.look()
        assert await one
        assert not other.done()
        rig.mirror.end_waiting()
        assert await other

    rig.run(work)


def test_news_between_a_read_and_the_wait_isn_t_missed(rig: Rig) -> None:
    rig.fleet.publish(number=1)

    async def work() -> None:
        turn = rig.mirror.turn()
        await rig.mirror.pointer("line")
        rig.fleet.publish(number=2)
        await rig.mirror.look()
        assert await rig.mirror.news(("pointer/line",), turn, 60)
        assert not await rig.mirror.news(("pointer/line",), rig.mirror.turn(), 0.001)

    rig.run(work)


def test_a_request_that_waits_wakes_its_device_once(rig: Rig) -> None:
    ring(rig, lambda bell: msgspec.structs.replace(bell, number=1))

    async def work() -> None:
        turn = rig.mirror.turn()
        ring(rig, lambda _: Bell(number=2, waiting={"cam-1": ("a",)}))
        await rig.mirror.look()
        assert rig.mirror.newer("waiting/cam-1", turn)
        assert not rig.mirror.newer("waiting/cam-2", turn)
        assert rig.mirror.waiting("cam-1") == ("a",)
        turn = rig.mirror.turn()
        ring(rig, lambda _: Bell(number=3))
        await rig.mirror.look()
        assert not rig.mirror.newer("waiting/cam-1", turn)
        assert rig.mirror.waiting("cam-1") == ()

    rig.run(work)


def test_a_bell_that_can_t_be_read_changes_nothing(rig: Rig) -> None:
    rig.fleet.publish()

    async def work() -> None:
        pointer = await rig.mirror.pointer("line")
        rig.fleet.rig.state.update(rig.mirror.keys.bell, lambda _: b"no document")
        await rig.mirror.look()
        assert await rig.mirror.pointer("line") == pointer
        assert rig.mirror.away_since is None
        rig.fleet.rig.state.update(rig.mirror.keys.bell, lambda _: encode(Bell(number=9)))
        await rig.mirror.look()

    rig.run(work)


def test_a_store_that_takes_too_long_is_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.fleet.publish()

    async def work() -> None:
        pointer = await rig.mirror.pointer("line")
        monkeypatch.setattr(mirror, "PATIENCE_S", 0.05)
        rig.state.hold = threading.Event()
        try:
            await rig.mirror.look()
            assert rig.mirror.away_since is not None
            assert await rig.mirror.pointer("line") == pointer
        finally:
            rig.state.hold.set()

    rig.run(work)
