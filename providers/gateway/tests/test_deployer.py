"""What operators see of devices: when they were heard of, by whom, and what to do about silence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from edgefleet.plugins.provider import Context
from edgefleet.protocol.documents import encode
from edgefleet.testing.kit import samples
from edgefleet_gateway.deployer import GatewayDeployer
from edgefleet_gateway.records import (
    Bell,
    Certificate,
    DeviceRecord,
    Keys,
    ReportRecord,
    SeenRecord,
)
from edgefleet_gateway.roster import Roster
from edgefleet_gateway.settings import GatewaySettings
from edgefleet_gateway.sightings import GATEWAY_S

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.interfaces.values import DeviceInfo
    from edgefleet_local.state import DirectoryStateStore

KEYS = Keys("edgefleet")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SETTINGS = GatewaySettings(poll_s=60, longest_wait_s=50)
DAY = timedelta(days=1)


class Fleet(NamedTuple):
    """An operator's view of a state store that the test writes as gateways do."""

    deployer: GatewayDeployer
    store: DirectoryStateStore

    def put(self, key: str, document: msgspec.Struct) -> None:
        data = encode(document)
        self.store.update(key, lambda _: data)

    def seen(
        self, ago: timedelta, *, gateway: str = "gw-1", written: timedelta | None = None
    ) -> None:
        """Device a was seen a while ago by a gateway that has written since."""
        at = int((NOW - ago).timestamp())
        since = ago if written is None else written
        self.put(KEYS.seen(gateway, 0), SeenRecord(written=NOW - since, devices={"a": at}))

    def change(self, **fields: object) -> None:
        """Change the record of device a."""
        roster = Roster(lambda: self.store, KEYS)
        roster.change("a", lambda there: msgspec.structs.replace(there, **fields))

    def device(self) -> DeviceInfo:
        (listed,) = self.deployer.devices()
        assert self.deployer.device("a") == listed
        return listed


@pytest.fixture
def fleet(home: Path, store: DirectoryStateStore) -> Fleet:
    context = Context(base=home, name="gateway", state=lambda: store)
    deployer = GatewayDeployer(SETTINGS, context, clock=lambda: NOW)
    deployer.enroll("a", group="line-3")
    return Fleet(deployer, store)


@pytest.mark.parametrize(
    "ago_s, connected", [(0, True), (2.5 * 60, True), (2.5 * 60 + 21, False), (86_400, False)]
)
def test_a_device_is_connected_for_two_polls_and_a_half(
    fleet: Fleet, ago_s: float, *, connected: bool
) -> None:
    fleet.seen(timedelta(seconds=ago_s))
    device = fleet.device()
    assert device.connected is connected
    assert device.last_seen == NOW - timedelta(seconds=ago_s)


def test_a_report_counts_as_a_sighting_and_the_newest_of_all_gateways_does(fleet: Fleet) -> None:
    said = samples.report(samples.pointer(1))
    came = NOW - timedelta(seconds=5)
    fleet.put(KEYS.report("a"), ReportRecord(report=said.encoded(), came=came))
    fleet.seen(2 * DAY, gateway="gw-1")
    device = fleet.device()
    assert (device.connected, device.last_seen, device.report) == (True, came, said)
    fleet.seen(timedelta(seconds=2), gateway="gw-2")
    device = fleet.device()
    assert device.last_seen == NOW - timedelta(seconds=2)
    assert device.evidence["gateway"] == "gw-2"
    assert device.evidence["last poll"] == "2026-11-22 11:59:58 UTC"


def test_evidence_tells_of_certificates_and_reports_that_make_no_sense(fleet: Fleet) -> None:
    ends = NOW + 30 * DAY
    fleet.change(certificates=(Certificate(serial="1", ends=ends),))
    fleet.put(KEYS.report("a"), ReportRecord(report=b"no report", came=NOW))
    device = fleet.device()
    assert device.evidence["certificate ends"] == "2026-12-22 12:00:00 UTC"
    assert "malformed" in device.evidence["report"]
    assert (device.report, device.blocked) == (None, None)
    fleet.change(revoked=True)
    assert fleet.device().evidence["certificate"] == "revoked"
    assert fleet.device().connected is False


def test_who_waits_for_a_device_is_told_what_to_do(fleet: Fleet) -> None:
    def said() -> tuple[str | None, str | None]:
        device = fleet.device()
        return device.blocked, device.cure

    none = "start one with: edgefleet gateway serve"
    assert said() == ("no gateway has ever been seen", none)
    fleet.seen(3 * DAY, written=timedelta(seconds=GATEWAY_S + 1))
    assert said() == ("no gateway has been seen for 5 minutes", none)
    fleet.put(KEYS.seen("gw-1", 0), SeenRecord(written=NOW, devices={}))
    assert said() == (
        "it has not come yet",
        "run there what this prints: edgefleet device enroll a --group line-3",
    )
    fleet.change(certificates=(Certificate(serial="1", ends=NOW + DAY),))
    assert said() == (
        "it joined, and has asked for nothing since",
        "look there at what its runtime says: journalctl -u edgefleet-runtime",
    )
    fleet.seen(3 * DAY, written=timedelta())
    why, cure = said()
    assert why == "it was last seen 3 days ago"
    assert cure is not None
    assert "power and network" in cure
    fleet.seen(timedelta())
    assert said() == (None, None)
    again = "run there what this prints: edgefleet device enroll a --group line-3 --replace"
    fleet.change(certificates=(Certificate(serial="1", ends=NOW - 365 * DAY),))
    assert said() == (None, None)
    fleet.change(certificates=(Certificate(serial="1", ends=NOW - 366 * DAY),))
    why, cure = said()
    assert why == "access expired: its certificate ended on 2025-11-21, too long ago to renew it"
    assert cure == again
    fleet.change(revoked=True)
    assert said() == ("its identity was revoked", again)


def test_a_device_that_no_gateway_ever_saw_may_wait_for_a_stick(fleet: Fleet) -> None:
    """Its report came by one: what asks for nothing over a network can't be helped there."""
    fleet.put(KEYS.seen("gw-1", 0), SeenRecord(written=NOW, devices={}))
    said = samples.report(samples.pointer(1)).encoded()
    fleet.put(KEYS.report("a"), ReportRecord(report=said, came=NOW - 3 * DAY))
    device = fleet.device()
    assert device.blocked == "it was last seen 3 days ago"
    assert str(device.cure).startswith("if a stick reaches it, carry one there and import it here")
    fleet.seen(3 * DAY, written=timedelta())
    assert "stick" not in str(fleet.device().cure)


def test_an_ended_certificate_keeps_no_device_from_a_stick(fleet: Fleet) -> None:
    """What it signs there is still taken: nobody needs to enrol it again for that."""
    said = samples.report(samples.pointer(1)).encoded()
    fleet.change(certificates=(Certificate(serial="1", ends=NOW - 400 * DAY),))
    fleet.put(KEYS.report("a"), ReportRecord(report=said, came=NOW - 3 * DAY))
    stick = "if a stick reaches it, carry one there and import it here; else "
    again = "run there what this prints: edgefleet device enroll a --group line-3 --replace"
    for since in (None, 500 * DAY):  # when it enrolled, over a network, a gateway saw it
        if since is not None:
            fleet.seen(since)
        device = fleet.device()
        assert (device.blocked, device.cure) == ("it was last seen 3 days ago", stick + again)
    fleet.seen(3 * DAY)
    assert str(fleet.device().blocked).startswith("access expired")


def test_who_has_no_gateway_reaches_devices_by_a_stick(fleet: Fleet) -> None:
    said = samples.report(samples.pointer(1)).encoded()
    fleet.put(KEYS.report("a"), ReportRecord(report=said, came=NOW - 3 * DAY))
    device = fleet.device()
    assert device.blocked == "it was last seen 3 days ago"
    assert str(device.cure).startswith("if a stick reaches it, carry one there and import it here")
    assert str(device.cure).endswith("else start one with: edgefleet gateway serve")


def test_labels_of_operators_go_before_those_that_the_device_gave(fleet: Fleet) -> None:
    fleet.change(said={"target": "x86-cpu", "cpu": "n100"})
    fleet.deployer.label("a", {"target": "jetson-orin"})
    assert fleet.device().labels == {"target": "jetson-orin", "cpu": "n100"}


def test_publishing_again_rings_again(fleet: Fleet) -> None:
    """Whoever published it may have been killed before ringing."""
    pointer = samples.pointer(1)
    for _ in range(2):
        fleet.store.update(KEYS.bell, lambda _: encode(Bell()))
        fleet.deployer.publish("line-3", pointer)
        assert Roster(lambda: fleet.store, KEYS).bell().changes == ((1, "pointer/line-3"),)


def test_groups_are_told_without_reading_devices(fleet: Fleet) -> None:
    fleet.put(KEYS.device("b"), DeviceRecord(group="line-3", since=NOW))
    fleet.store.update(KEYS.device("b"), lambda _: b"unreadable")
    assert [group.name for group in fleet.deployer.groups()] == ["line-3"]
    assert fleet.deployer.group("line-3").devices is None
