"""A device's whole life with its identity, over real TLS: its own commands, a real gateway."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edgefleet.errors import AccessDeniedError, EdgeFleetError
from edgefleet.plugins.provider import Context
from edgefleet.protocol.gateway import POINTER, RENEW
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.deployer import GatewayDeployer
from edgefleet_gateway.server.running import Serving
from edgefleet_runtime import cli
from edgefleet_runtime.channels.pull.clock import GatewayClock
from edgefleet_runtime.channels.pull.gateways import Gateways
from edgefleet_runtime.channels.pull.identity import DeviceIdentity
from providers.gateway.tests.joining_rig import FLEET
from providers.gateway.tests.server_rig import Fleet


class Device:
    """A machine with the runtime's own command and channel."""

    def __init__(self, root: Path, serving: Serving, pins: tuple[str, ...]) -> None:
        self.root, self._serving = root, serving
        self._pins = ";".join(f"sha256//{pin}" for pin in pins)

    def enroll(self, token: str, monkeypatch: pytest.MonkeyPatch) -> int:
        """What the printed command does in the end."""
        monkeypatch.setattr(sys, "stdin", io.StringIO(token))
        words = ["--gateway", self._serving.address, "--root", str(self.root), "--pin", self._pins]
        return cli.main(["enroll", *words])

    def identity(self) -> DeviceIdentity:
        """Who it is, read anew."""
        return DeviceIdentity(self.root / "identity")

    def gateways(self) -> Gateways:
        """The channel's way to its gateways, as after a start."""
        return Gateways(self.identity(), GatewayClock(), timeout_s=20.0)

    def poll(self) -> int:
        """Ask for news twice; the status of the second answer. The first tells what time it is."""
        gateways = self.gateways()
        try:
            gateways.ask("GET", POINTER)
            return gateways.ask("GET", POINTER).status
        finally:
            gateways.close()


@pytest.fixture
def deployer(fleet: Fleet) -> GatewayDeployer:
    context = Context(base=fleet.folder, name="gateway", state=lambda: fleet.rig.state)
    return GatewayDeployer(fleet.rig.settings, context)


@pytest.fixture
def make(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Device]]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with fleet.gateway() as serving:
        # Devices are told this gateway's own address.
        told = fleet.rig.settings.model_copy(update={"addresses": (serving.address,)})
        fleet.rig.joining._settings = told

        def machine(name: str) -> Device:
            return Device(tmp_path / "machines" / name, serving, fleet.rig.authority.pins)

        yield machine


def refused(device: Device) -> bool:
    try:
        device.poll()
    except AccessDeniedError:
        return True
    return False


def joined(
    make: Callable[[str], Device],
    fleet: Fleet,
    deployer: GatewayDeployer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    ago: timedelta = timedelta(),
) -> Device:
    """A device that joined a while ago."""
    device = make("one")
    fleet.rig.now = datetime.now(UTC) - ago
    fleet.rig.roster.enroll("cam-07", "line", {})
    token = deployer.invite("cam-07", group="line").token
    assert device.enroll(token, monkeypatch) == 0
    fleet.rig.now = datetime.now(UTC)
    return device


def test_enrolled_by_its_command_a_device_is_known(
    make: Callable[[str], Device],
    fleet: Fleet,
    deployer: GatewayDeployer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = joined(make, fleet, deployer, monkeypatch)
    assert device.poll() == 204
    identity = device.identity().identity
    assert (identity.device, identity.fleet) == ("cam-07", FLEET)


def test_a_token_used_twice_makes_no_second_machine(
    make: Callable[[str], Device],
    deployer: GatewayDeployer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    first, second = make("first"), make("second")
    token = deployer.invite("cam-07", group="line").token
    assert first.enroll(token, monkeypatch) == 0
    capfd.readouterr()
    assert second.enroll(token, monkeypatch) == 1
    said = capfd.readouterr().err
    assert "the token for cam-07 was used" in said
    assert "--replace" in said
    assert token not in said
    assert first.enroll(token, monkeypatch) == 0
    assert first.poll() == 204


@pytest.mark.parametrize("days", [70, 100, 400], ids=["due", "ended", "long-ended"])
def test_a_certificate_is_renewed_by_itself_before_its_end_and_long_after(
    make: Callable[[str], Device],
    fleet: Fleet,
    deployer: GatewayDeployer,
    monkeypatch: pytest.MonkeyPatch,
    days: int,
) -> None:
    device = joined(make, fleet, deployer, monkeypatch, ago=timedelta(days=days))
    before = device.identity().identity.certificate
    assert device.poll() == 204
    assert device.identity().identity.certificate != before
    assert not device.identity().renewal_due(time.time())
    assert device.poll() == 204
    # The gateway saw the new one: what came before counts no more.
    eventually(lambda: len(fleet.rig.record("cam-07").certificates) == 1)


def test_a_certificate_that_ended_too_long_ago_says_what_to_do(
    make: Callable[[str], Device],
    fleet: Fleet,
    deployer: GatewayDeployer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = joined(make, fleet, deployer, monkeypatch, ago=timedelta(days=90 + 365 + 2))
    with pytest.raises(AccessDeniedError, match="ended") as caught:
        device.poll()
    assert "edgefleet device enroll" in str(caught.value)


def test_a_revoked_device_is_refused_and_may_come_back(
    make: Callable[[str], Device],
    fleet: Fleet,
    deployer: GatewayDeployer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = joined(make, fleet, deployer, monkeypatch)
    running = device.gateways()
    try:
        assert running.ask("GET", POINTER).status == 204
        deployer.revoke("cam-07")
        eventually(lambda: refused(device))
        with pytest.raises(AccessDeniedError, match="revoked"):
            running.ask("POST", RENEW, body=running.credentials.renewal())
        # On the same machine, without a restart of what runs there.
        token = deployer.invite("cam-07", group="line", replace=True).token
        assert device.enroll(token, monkeypatch) == 0
        eventually(lambda: not refused(device))
        assert running.ask("GET", POINTER).status == 204
    finally:
        running.close()


def test_a_replaced_machine_is_refused_once_the_new_one_has_come(
    make: Callable[[str], Device],
    fleet: Fleet,
    deployer: GatewayDeployer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = joined(make, fleet, deployer, monkeypatch), make("new")
    token = deployer.invite("cam-07", group="line", replace=True).token
    assert old.poll() == 204
    assert new.enroll(token, monkeypatch) == 0
    eventually(lambda: refused(old))
    assert new.poll() == 204


def test_while_the_authority_is_rotated_devices_go_on(
    make: Callable[[str], Device],
    fleet: Fleet,
    deployer: GatewayDeployer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = fleet.rig
    device = joined(make, fleet, deployer, monkeypatch, ago=timedelta(days=70))
    rig.rotate()
    eventually(lambda: rig.authority.believed.count("BEGIN") == 2)
    later = make("later")
    assert later.enroll(deployer.invite("cam-08", group="line").token, monkeypatch) == 0

    def polls(one: Device) -> bool:
        try:
            return one.poll() == 204
        except EdgeFleetError:
            return False

    eventually(lambda: polls(later))  # by a certificate of the new authority
    assert device.poll() == 204  # which renewed it, and learnt of the new one
    assert device.identity().identity.authorities.count("BEGIN") == 2
