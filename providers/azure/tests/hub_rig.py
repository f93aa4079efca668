"""A mock cloud with a fleet of its own and a deployer on it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.hub_throttle import Throttle
from edgefleet_azure.deployer import IotEdgeDeployer
from edgefleet_azure.manifests import base
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore
from providers.azure.tests.hub_devices import Granted, PlayedDevice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from edgefleet_azure.cloud.hub_service import HubService
    from edgefleet_azure.cloud.hub_state import HubState

IMAGE = "plant.azurecr.io/edgefleet/runtime:1.0"


class Rig:
    """What a test of the deployer holds."""

    def __init__(self, cloud: AzureMock, **settings: Any) -> None:
        self.cloud = cloud
        self.settings = AzureSettings(
            **{"prefix": "plant", "runtime_image": IMAGE, **cloud.settings, **settings}
        )
        self.clients = Clients(self.settings)
        self.grants = Granted()
        self.state = BlobStateStore(self.clients, self.settings)
        self.clients.container("state").create_container()
        self.deployer = self.another()

    def another(self) -> IotEdgeDeployer:
        """A second operator."""
        return IotEdgeDeployer(
            self.clients, self.settings, state=lambda: self.state, grants=self.grants
        )

    def service(self, number: int = 1) -> HubService:
        return self.cloud.stage.iot_hubs[f"hub-{number}"]

    @property
    def hub(self) -> HubState:
        return self.service().state

    def end(self, name: str, number: int = 1) -> PlayedDevice:
        return PlayedDevice(self.service(number).state, name, self.grants)

    def layers(self, number: int = 1) -> list[str]:
        """Names of all configurations but the base, the newest last."""
        found = self.service(number).state.configurations
        return [name for name in found if name != self.base]

    @property
    def base(self) -> str:
        """Name of the base deployment."""
        return str(base(self.settings)["id"])

    def install(self) -> None:
        """Put the base deployment into every hub."""
        for host in self.settings.hubs:
            self.deployer.hub(host).create_configuration(base(self.settings))

    def seen(self, operation: str) -> int:
        """How often the cloud saw an operation."""
        return sum(operation in line for line in self.cloud.seen())

    def at_units(self, units: int, number: int = 1) -> Throttle:
        """Have a hub of so many units."""
        throttle = self.service(number).throttle
        throttle.units = units
        return throttle


@contextmanager
def rig(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, hubs: int = 1, **settings: Any
) -> Iterator[Rig]:
    """A rig, which ends with the block."""
    cloud = AzureMock(folder / "cloud", hubs=hubs)
    cloud.start()
    try:
        for name, value in cloud.authority.alone(cloud.environment).items():
            monkeypatch.setenv(name, value)
        made = Rig(cloud, **settings)
        try:
            yield made
        finally:
            made.clients.close()
    finally:
        cloud.stop()
