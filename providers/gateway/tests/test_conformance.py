"""The kit behind a real gateway, over TLS: devices that it plays hold a device's own certificate,
and real ones were enrolled by a token.
"""

from __future__ import annotations

import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar
from urllib.error import HTTPError

import pytest

from edgefleet.protocol.gateway import REPORT
from edgefleet.protocol.stick import SignedReceipt, signed_bytes
from edgefleet.testing.kit.deployer import DeployerConformance
from edgefleet.testing.kit.devices import AddDevice
from edgefleet.testing.kit.fleet import FleetConformance
from edgefleet.testing.kit.gaps import Gap, never
from edgefleet.testing.kit.inviting import InvitingConformance
from edgefleet.testing.kit.receipts import ReceiptsConformance, Sign
from edgefleet.testing.kit.upgrading import UpgradingConformance
from edgefleet_runtime.channels.pull.identity import DeviceIdentity
from providers.gateway.tests.fleet_rig import FleetRig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.inviting import Invitation
    from edgefleet.testing.kit.devices import DeviceEnd
    from edgefleet_gateway.deployer import GatewayDeployer

THEIRS = {
    "edgefleet/pointers-of-theirs/line-3": b"not ours",
    "edgefleet/pointers/.theirs": b"nor this",
    "edgefleet/devices/.theirs.json": b"nor this",
    "edgefleet/notes.txt": b"nor this",
}


class BehindGateway:
    """Fixtures that both suites share."""

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Iterator[FleetRig]:
        made = FleetRig(tmp_path)
        yield made
        made.close()

    @pytest.fixture
    def device_end(self, rig: FleetRig) -> Callable[[str], DeviceEnd]:
        return rig.end

    @pytest.fixture
    def expire_access(self, rig: FleetRig) -> Callable[[str], Callable[[], None]]:
        return rig.expire


class TestDeployer(BehindGateway, DeployerConformance):
    gaps: ClassVar[Mapping[str, Gap]] = {
        "test_expired_access_is_told_and_can_be_renewed": never(
            "a certificate is all that a gateway knows a device by, so one whose certificate has "
            "ended says nothing; the operator is told by the record of it"
        )
    }

    @pytest.fixture
    def deployer(self, rig: FleetRig) -> GatewayDeployer:
        return rig.deployer

    @pytest.fixture
    def forge_report(self, rig: FleetRig) -> Callable[[str, str, bytes], None]:
        def forge(by: str, victim: str, report: bytes) -> None:
            rig.end(by)
            identity = DeviceIdentity(rig.identity(by))
            for path in (f"{REPORT}/{victim}", f"{REPORT}?device={victim}"):
                address = identity.identity.gateways[0] + path
                headers = {"Content-Type": "application/json", "EdgeFleet-Device": victim}
                asked = urllib.request.Request(address, report, headers, method="PUT")
                with suppress(HTTPError):
                    urllib.request.urlopen(asked, context=identity.context()).close()

        return forge

    @pytest.fixture
    def foreign(self, rig: FleetRig) -> tuple[Callable[[str], None], Callable[[], None]]:
        def plant(group: str) -> None:
            for key, data in THEIRS.items():
                rig.fleet.state.write(key, data, expect=None)

        def check() -> None:
            for key, data in THEIRS.items():
                stored = rig.fleet.state.read(key)
                assert stored is not None
                assert stored.data == data

        return plant, check


@pytest.fixture(scope="module")
def one_rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetRig]:
    """For all tests whose devices have names of their own."""
    made = FleetRig(tmp_path_factory.mktemp("inviting"))
    yield made
    made.close()


class TestInviting(InvitingConformance):
    @pytest.fixture
    def deployer(self, one_rig: FleetRig) -> GatewayDeployer:
        return one_rig.deployer

    @pytest.fixture
    def join(self, one_rig: FleetRig) -> Callable[[Invitation], DeviceEnd]:
        return one_rig.join


class TestUpgrading(BehindGateway, UpgradingConformance):
    @pytest.fixture
    def deployer(self, rig: FleetRig) -> GatewayDeployer:
        return rig.deployer


class TestReceipts(ReceiptsConformance):
    @pytest.fixture
    def deployer(self, one_rig: FleetRig) -> GatewayDeployer:
        return one_rig.deployer

    @pytest.fixture
    def sign(self, one_rig: FleetRig) -> Sign:
        def sign(device: str, said: bytes) -> SignedReceipt:
            one_rig.end(device)
            identity = DeviceIdentity(one_rig.identity(device))
            return SignedReceipt(
                receipt=said,
                signature=identity.sign(signed_bytes(said)),
                certificate=identity.identity.certificate,
            )

        return sign

    @pytest.fixture
    def fleet_id(self, one_rig: FleetRig) -> str:
        return one_rig.fleet_id


class TestFleet(BehindGateway, FleetConformance):
    @pytest.fixture
    def fleet(self, rig: FleetRig) -> Fleet:
        return rig.fleet

    @pytest.fixture
    def power_on(self, rig: FleetRig) -> AddDevice:
        return rig.cloud.add_device
