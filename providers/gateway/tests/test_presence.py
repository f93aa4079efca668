"""When devices were seen outlives a gateway."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgefleet.errors import UnavailableError
from edgefleet.protocol.documents import decode
from edgefleet_gateway.mirror import Mirror
from edgefleet_gateway.records import SeenRecord
from edgefleet_gateway.roster import delete
from edgefleet_gateway.server import presence
from edgefleet_gateway.server.presence import ABANDONED, PART, Presence
from providers.gateway.tests.server_rig import Fleet

START = datetime(2026, 11, 22, 12, tzinfo=UTC)


class Rig:
    """Gateways that the test starts and ends, on its clock."""

    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder)
        self.now = START

    async def session(self, gateway: str, *devices: str) -> None:
        """A gateway that begins, sees some devices, writes and is gone."""
        mirror = Mirror(self.fleet.state, prefix=self.fleet.rig.settings.prefix)
        seen = Presence(gateway, self.fleet.state, mirror, now=lambda: self.now)
        running = asyncio.create_task(seen.run())
        try:
            await seen.begun.wait()
            for device in devices:
                seen.seen(device, self.now)
            await seen.flush()
        finally:
            running.cancel()
            mirror.close()

    def enroll(self, *devices: str) -> None:
        for device in devices:
            self.fleet.rig.roster.enroll(device, "line", {})

    def run(self, gateway: str, *devices: str) -> None:
        asyncio.run(self.session(gateway, *devices))

    def written(self) -> dict[str, dict[str, int]]:
        """What each gateway wrote: device -> seconds."""
        found: dict[str, dict[str, int]] = {}
        keys = self.fleet.rig.keys
        for key in self.fleet.rig.state.keys(keys.seen_all):
            stored = self.fleet.rig.state.read(key)
            assert stored is not None
            devices = decode(SeenRecord, stored.data).devices
            found.setdefault(key.removeprefix(keys.seen_all).split("/")[0], {}).update(devices)
        return found


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_gateway_that_begins_again_knows_whom_it_saw(rig: Rig) -> None:
    rig.run("one", "cam-1", "cam-2")
    first = int(rig.now.timestamp())
    rig.now += timedelta(hours=1)
    rig.run("one", "cam-2")
    assert rig.written() == {"one": {"cam-1": first, "cam-2": first + 3600}}


def test_what_a_gateway_saw_that_is_gone_is_taken_over(rig: Rig) -> None:
    rig.run("one", "cam-1")
    first = int(rig.now.timestamp())
    rig.run("two", "cam-2")
    assert rig.written() == {"one": {"cam-1": first}, "two": {"cam-2": first}}
    rig.now += ABANDONED + timedelta(minutes=1)
    rig.run("two", "cam-1")
    assert rig.written() == {"two": {"cam-1": int(rig.now.timestamp()), "cam-2": first}}


def test_many_devices_take_several_documents(rig: Rig) -> None:
    names = [f"device-{number}-{'x' * 100}" for number in range(2 * PART + 1)]
    rig.run("one", *names)
    keys = list(rig.fleet.rig.state.keys(rig.fleet.rig.keys.seen_all))
    assert len(keys) == 3
    assert rig.written()["one"].keys() == {*names}


def test_devices_that_were_removed_are_forgotten(rig: Rig) -> None:
    rig.enroll("cam-1", "cam-2")
    rig.run("one", "cam-1", "cam-2")
    first = int(rig.now.timestamp())
    rig.fleet.rig.roster.retire("cam-1")
    rig.run("one")
    assert rig.written() == {"one": {"cam-2": first}}


def test_the_room_of_those_that_were_forgotten_is_filled_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "PART", 2)
    rig.enroll("cam-1", "cam-2", "cam-3", "cam-4")
    rig.run("one", "cam-1", "cam-2", "cam-3")
    for device in ("cam-1", "cam-2"):
        rig.fleet.rig.roster.retire(device)
    rig.run("one", "cam-4")
    assert rig.written()["one"].keys() == {"cam-3", "cam-4"}
    stored = rig.fleet.rig.state.read(rig.fleet.rig.keys.seen("one", 1))
    assert stored is not None
    assert decode(SeenRecord, stored.data).devices == {}


def test_nobody_is_forgotten_for_a_state_store_that_lost_all(rig: Rig) -> None:
    rig.enroll("cam-1")
    rig.run("one", "cam-1")
    rig.fleet.rig.roster.retire("cam-1")
    delete(rig.fleet.rig.state, rig.fleet.rig.keys.bell)
    rig.run("one")
    assert rig.written()["one"].keys() == {"cam-1"}


def test_what_couldn_t_be_written_is_written_next_time(rig: Rig) -> None:
    async def work() -> None:
        mirror = Mirror(rig.fleet.state, prefix=rig.fleet.rig.settings.prefix)
        seen = Presence("one", rig.fleet.state, mirror, now=lambda: rig.now)
        seen.seen("cam-1", rig.now)
        rig.fleet.state.away = True
        with pytest.raises(UnavailableError):
            await seen.flush()
        rig.fleet.state.away = False
        await seen.flush()
        mirror.close()

    asyncio.run(work())
    assert rig.written()["one"].keys() == {"cam-1"}
