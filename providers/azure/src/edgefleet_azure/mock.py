"""The mock of Azure: a loopback port for each of its hosts, HTTPS with a throw-away authority.

Blob storage, identity, Azure Resource Manager with Azure ML, and IoT Hubs; devices run the real
runtime under a stand-in for IoT Edge. See ``mock_rules.md`` for each rule. What the cloud holds is
kept in the mock's folder when it stops in order, and a mock that starts there goes on with it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.plugins.provider import Role
from edgefleet.testing.cloud.keeping import Keeper, Place
from edgefleet.testing.cloud.refusals import made_of_extra, not_running
from edgefleet.testing.cloud.rules import Rules
from edgefleet.testing.mock import MockCloud, without_proxy
from edgefleet_azure.cloud.calls import throttled
from edgefleet_azure.resource_names import KINDS
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.template import CONSUMER_GROUP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from edgefleet.testing.cloud.authority import Authority
    from edgefleet.testing.cloud.keeping import Part
    from edgefleet_azure.cloud.edge_fleet import DeviceFleet
    from edgefleet_azure.cloud.ml_service import AzureMl
    from edgefleet_azure.cloud.stage import Stage

VENDOR = "Azure"
SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"
RESOURCE_GROUP = "edgefleet-mock"
WORKSPACE = "edgefleet-mock"
GROUP_PATH = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}"
ML_REGISTRY = "edgefleet-shared"  # in another subscription; the mock's settings don't name it
ENVIRONMENT = "azureml:python:3"  # never pulled: scripts run with this Python


class AzureMock(MockCloud):
    """Azure on this machine.

    Args:
        state: folder for what it keeps.
        hubs: how many IoT Hubs there are.
        hierarchical: whether the storage account has a hierarchical namespace, without which no
            access is for one device's folder.

    Attributes:
        account: name of the storage account.
        rules: faults to inject.
    """

    name: ClassVar[str] = "azure"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)

    def __init__(self, state: Path, *, hubs: int = 1, hierarchical: bool = True) -> None:
        super().__init__(state)
        self.account = f"edgefleet{secrets.token_hex(4)}"
        self._hubs = tuple(f"hub-{number}" for number in range(1, hubs + 1))
        self._hierarchical = hierarchical
        self._keeper = Keeper(state / "cloud.json")
        self._stage: Stage | None = None
        self._fleet: DeviceFleet | None = None
        self.rules = Rules(throttled)

    def start(self) -> None:
        """Listen on loopback; no error when it does already.

        Raises:
            MissingExtraError: what the mock is made of isn't installed.
        """
        if self._stage is not None and self._stage.running:
            return
        with made_of_extra(VENDOR, "edgefleet-azure"):
            from edgefleet_azure.cloud.edge_fleet import DeviceFleet  # noqa: PLC0415 - likewise
            from edgefleet_azure.cloud.stage import Stage  # noqa: PLC0415 - extra may be missing
        self.state.mkdir(parents=True, exist_ok=True)
        place = Place({"account": self.account, "ports": {}})
        self._keeper.restore({"place": place})
        self.account = place.told["account"]
        self._stage = Stage(
            self.rules,
            self.state,
            account=self.account,
            group=GROUP_PATH,
            workspace=WORKSPACE,
            registry=ML_REGISTRY,
            given=lambda: self.environment,
            hubs=self._hubs,
            hierarchical=self._hierarchical,
        )
        self._keeper.restore(self._stage.parts)
        self._stage.open(place.told["ports"])
        self._stage.management.seed(self.account, WORKSPACE)
        self.add_fleet(AzureSettings.model_fields["prefix"].default)
        self._fleet = DeviceFleet(
            self._stage, self.state / "devices", borrowed=lambda: self.borrowed.variables
        )
        self._keeper.restore({"devices": self._fleet})

    def stop(self) -> None:
        """End devices and jobs, keep what there is, and stop listening."""
        self.rules.clear()
        stage, self._stage = self._stage, None
        fleet, self._fleet = self._fleet, None
        if stage is None:
            return
        place = Place({"account": self.account, "ports": stage.ports})
        parts: dict[str, Part] = {"place": place, **stage.parts}
        try:
            if fleet is not None:
                fleet.shut_down()
                parts["devices"] = fleet
            stage.end_jobs()
            self._keeper.save(parts)
        finally:
            stage.close()

    @property
    def ml(self) -> AzureMl:
        """Azure ML, to look at and to interrupt.

        Raises:
            ConfigurationError: the mock isn't running.
        """
        return self.stage.ml

    @property
    def stage(self) -> Stage:
        """What it is made of.

        Raises:
            ConfigurationError: the mock isn't running.
        """
        if self._stage is None or not self._stage.running:
            raise not_running(VENDOR)
        return self._stage

    @property
    def environment(self) -> dict[str, str]:
        """What Azure's libraries read: a managed identity, whom to trust, where the cloud is."""
        stage = self.stage
        bundle = str(stage.authority.bundle.absolute())
        return {
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "AZURE_CLIENT_ID": stage.identities.operator.id,
            "IDENTITY_ENDPOINT": f"{stage.url('identity')}/msi/token",
            "IDENTITY_HEADER": stage.identities.header,
            "ARM_CLOUD_METADATA_URL": f"{stage.url('arm')}/metadata/endpoints",
            "REGISTRY_DISCOVERY_ENDPOINT_URL": f"{stage.url('arm')}/",
            "REQUESTS_CA_BUNDLE": bundle,
            "SSL_CERT_FILE": bundle,
            **without_proxy(),
        }

    @property
    def authority(self) -> Authority:
        """What certifies every host of it."""
        return self.stage.authority

    @property
    def settings(self) -> dict[str, Any]:
        """Where storage, workspace and hubs are."""
        from edgefleet_azure.cloud.edge_fleet import RUNTIME_IMAGE  # noqa: PLC0415 - likewise

        stage = self.stage
        return {
            "storage_url": f"{stage.url('blob')}/{self.account}",
            "subscription": SUBSCRIPTION,
            "resource_group": RESOURCE_GROUP,
            "workspace": WORKSPACE,
            "environment": ENVIRONMENT,
            "runtime_image": RUNTIME_IMAGE,
            "hubs": [stage.authority_of(hub) for hub in stage.hubs],
            "arm_url": stage.url("arm"),
            "cache": str((self.state / "cache").absolute()),
        }

    @property
    def fleet(self) -> DeviceFleet:
        """The devices.

        Raises:
            ConfigurationError: the mock isn't running.
        """
        if self._fleet is None:
            raise not_running(VENDOR)
        return self._fleet

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Enrol a device and start it; its runtime runs once edgeAgent has the base deployment."""
        from edgefleet_azure.cloud.operator import operating  # noqa: PLC0415 - extra may be missing

        with operating(self.stage, AzureSettings(**self.settings)) as deployer:
            self.fleet.add(deployer, name, group=group, labels=labels or {})

    def kill_device(self, name: str) -> None:
        """Cut a device's power: IoT Edge and the runtime are killed; its disk stays."""
        self.fleet.site.power_off(name)

    def start_device(self, name: str) -> None:
        """Give a device its power back."""
        self.fleet.site.power_on(name)

    def add_fleet(self, prefix: str) -> None:
        """Have containers and consumer groups of a fleet, as ``edgefleet install`` makes them."""
        self.stage.management.add_consumers(CONSUMER_GROUP)
        storage = self.stage.storage
        with storage.lock:
            for kind in KINDS:
                if f"{prefix}-{kind}" not in storage.containers:
                    storage.create(f"{prefix}-{kind}")

    def add_user(self, name: str, roles: Iterable[str], *, scope: str = "/") -> str:
        """Add somebody who may do what built-in roles say, and no more.

        Args:
            name: of the identity.
            roles: such as ``Storage Blob Data Reader``.
            scope: path that the roles count below.

        Returns:
            Its client id: who sets it as ``AZURE_CLIENT_ID`` is signed in as them.
        """
        return self.stage.identities.add(name, roles, scope).id

    def seen(self) -> Iterator[str]:
        """Every request: when, service and operation, path, status."""
        if self._stage is not None:
            yield from self._stage.seen()
