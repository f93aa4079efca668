"""The kit's suite of a whole fleet over Azure on its mock: devices that the kit plays, and real
ones, whose runtime has the vendor's own client behind IoT Edge.
"""

from __future__ import annotations

import time
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from edgefleet.fleet import Fleet
from edgefleet.policy_files import policy_of
from edgefleet.profile import Profile
from edgefleet.testing.kit.fleet import RELEASES, FleetConformance
from edgefleet.testing.mock import FAST_TELEMETRY
from edgefleet_azure.access import AccessGrants
from edgefleet_azure.clients import Clients
from edgefleet_azure.deployer import IotEdgeDeployer
from edgefleet_azure.layers import MAX_LAYERS
from edgefleet_azure.manifests import MODULE
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore
from providers.azure.tests.hub_devices import Granted, PlayedDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from edgefleet.testing.kit.devices import AddDevice, DeviceEnd

UNITS = 10  # of the hub: ten releases in as many seconds are more than one unit takes


class TestFleet(FleetConformance):
    @pytest.fixture
    def own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMock]:
        """A cloud whose hub has no device."""
        cloud = AzureMock(tmp_path / "cloud")
        cloud.start()
        try:
            for name, value in cloud.authority.alone(cloud.environment).items():
                monkeypatch.setenv(name, value)
            cloud.stage.iot_hubs["hub-1"].throttle.units = UNITS
            yield cloud
        finally:
            cloud.stop()

    @pytest.fixture
    def fleet(self, own: AzureMock, tmp_path: Path) -> Iterator[Fleet]:
        profile = Profile(
            name="test",
            base=tmp_path,
            provider="azure",
            recorded=policy_of(FAST_TELEMETRY, "the mock"),
            settings={"azure": own.settings},
        )
        with Fleet(profile) as fleet:
            yield fleet

    @pytest.fixture
    def device_end(self, own: AzureMock) -> Callable[[str], DeviceEnd]:
        hub, grants = own.stage.iot_hubs["hub-1"].state, Granted()
        return lambda name: PlayedDevice(hub, name, grants)

    @pytest.fixture
    def power_on(self, own: AzureMock) -> AddDevice:
        return own.add_device

    @pytest.fixture
    def expire_access(self, own: AzureMock) -> Callable[[str], Callable[[], None]]:
        """Let days go by, in which nobody renews anything."""
        settings = AzureSettings(**own.settings)
        account = own.stage.storage

        def expire(name: str) -> Callable[[], None]:
            later = timedelta(days=settings.access_days + 1).total_seconds()
            account.clock = lambda: time.time() + later

            def renew() -> None:
                clients = Clients(settings)
                store = BlobStateStore(clients, settings)
                grants = AccessGrants(clients, settings, clock=account.clock)
                deployer = IotEdgeDeployer(clients, settings, state=lambda: store, grants=grants)
                with closing(deployer):
                    assert deployer.layers.renew(deployer.device(name).group)

            return renew

        return expire

    def test_ten_releases_leave_the_runtime_alone(  # type: ignore[override] # another fixture
        self, fleet: Fleet, power_on: AddDevice, tmp_path: Path, own: AzureMock
    ) -> None:
        """Also: the group never has more than two layers, and edgeAgent starts no other process."""
        hub = own.stage.iot_hubs["hub-1"].state
        seen: list[tuple[int, int | None]] = []

        def look(*_: object) -> None:
            seen.append((len(hub.configurations) - 1, own.fleet.site.pid("cam-07", MODULE)))

        def watched(name: str, /, *, group: str, labels: Mapping[str, str] | None = None) -> None:
            power_on(name, group=group, labels=labels)
            hub.on_desired(name, MODULE, look)  # one of the configurations is the base

        super().test_ten_releases_leave_the_runtime_alone(fleet, watched, tmp_path)
        look()
        assert len(seen) > RELEASES
        assert max(layers for layers, _ in seen) <= MAX_LAYERS
        assert len({process for _, process in seen}) == 1
