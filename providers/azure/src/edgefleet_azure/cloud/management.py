"""Azure Resource Manager in the mock: what the resource group holds, and what that stands for.

A hub that a template makes is one of the mock's hosts, which are there from the start; one that is
not among them can't be made. A storage account's containers are those of the mock's Blob storage.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.testing.cloud.calls import Refused
from edgefleet_azure.cloud.arm_resources import Hook, Resources
from edgefleet_azure.cloud.authorization import Grants, Needed, of_arm, of_hub, of_provisioning
from edgefleet_azure.cloud.deployments import Deployments
from edgefleet_azure.cloud.dps import Provisioning
from edgefleet_azure.cloud.hub_values import Identity, key
from edgefleet_azure.events import DEFAULT_GROUP
from edgefleet_azure.resource_names import name_of_host
from edgefleet_azure.template import CONSUMERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgefleet_azure.cloud.accounts import StorageAccount
    from edgefleet_azure.cloud.calls import Call
    from edgefleet_azure.cloud.eventhubs import EventHubs
    from edgefleet_azure.cloud.hub_state import HubState
    from edgefleet_azure.cloud.identity import Identities

LOCATION = "westeurope"
_ACCOUNTS = "Microsoft.Storage/storageAccounts"
_CONTAINERS = f"{_ACCOUNTS}/blobServices/containers"
_HUBS = "Microsoft.Devices/IotHubs"
_DPS = "Microsoft.Devices/provisioningServices"
_WORKSPACES = "Microsoft.MachineLearningServices/workspaces"
HUB_POLICIES = ("iothubowner", "service", "registryRead", "registryReadWrite", "device")


class MockHub(NamedTuple):
    """One of the mock's hubs.

    Attributes:
        name: of its host within the mock.
        state: devices, twins, deployments.
        events: its Event Hubs-compatible endpoint.
    """

    name: str
    state: HubState
    events: EventHubs


def hub_key(hub: str, policy: str) -> str:
    """A key of one of a hub's policies, in base64: the mock's are the same each time."""
    return base64.b64encode(hashlib.sha256(f"mock {hub} {policy}".encode()).digest()).decode()


class Management:
    """The resource group.

    Args:
        identities: everybody who may call.
        storage: what the mock's storage account holds.
        group: resource id of the resource group.
        hubs: gives the hubs that the mock has, by their hosts.
        provisioning_host: gives the host of the provisioning service.

    Attributes:
        resources: that are there.
        deployments: of templates.
        provisioning: the provisioning service.
    """

    def __init__(
        self,
        identities: Identities,
        storage: StorageAccount,
        group: str,
        *,
        hubs: Callable[[], Mapping[str, MockHub]],
        provisioning_host: Callable[[], str],
    ) -> None:
        self.group = group
        self._hubs, self._provisioning_host = hubs, provisioning_host
        self.resources = Resources()
        self._storage = storage
        storage.resource = self._account
        self.resources.refresh = self._containers
        self.resources.hooks.update(
            {
                _HUBS.lower(): Hook(made=self._known_hub, shown=self._shown_hub),
                _CONTAINERS.lower(): Hook(made=self._made, removed=self._removed),
                _DPS.lower(): Hook(made=self._known_service, shown=self._shown_service),
            }
        )
        self.grants = Grants(self.resources, identities)
        self.deployments = Deployments(self.resources, location=LOCATION, list_keys=self.list_keys)
        self.provisioning = Provisioning(_Hubs(self))
        """Answers 404 before a template has made its service."""

    # What a request needs

    def of_arm(self, call: Call) -> Needed | None:
        """What a request to Azure Resource Manager needs."""
        return of_arm(call.method, call.path)

    def of_hub(self, call: Call) -> Needed:
        """What a request to a hub's service API needs."""
        name = name_of_host(call.base.partition("://")[2])
        return of_hub(call.method, f"{self.group}/providers/{_HUBS}/{name}", call.path)

    def of_provisioning(self, call: Call) -> Needed:
        """What a request to the provisioning service's own API needs."""
        name = name_of_host(call.base.partition("://")[2])
        return of_provisioning(call.method, f"{self.group}/providers/{_DPS}/{name}", call.path)

    # What is there before anybody calls

    def adopt(self, type_: str, name: str, **content: Any) -> None:  # noqa: ANN401 - JSON
        """Have a service that somebody else made; no error where it is there."""
        identity = f"{self.group}/providers/{type_}/{name}"
        self.resources.adopt(identity, type_, name, {"location": LOCATION, **content})

    def seed(self, account: str, workspace: str) -> None:
        """Have the services that the mock's own profile names."""
        has = {"allowSharedKeyAccess": True, "isHnsEnabled": self._storage.hierarchical}
        self.adopt(
            _ACCOUNTS, account, sku={"name": "Standard_LRS"}, kind="StorageV2", properties=has
        )
        self.adopt(_WORKSPACES, workspace)
        for host in self._hubs():
            self.adopt(_HUBS, name_of_host(host), sku={"name": "S1", "capacity": 1})

    # Hubs

    def _known_hub(self, resource: Mapping[str, Any]) -> None:
        if resource["name"] not in {name_of_host(host) for host in self._hubs()}:
            raise Refused(
                400, "BadRequest", f"This mock has no host for a hub named {resource['name']}."
            )

    def _shown_hub(self, resource: Mapping[str, Any]) -> Mapping[str, Any]:
        found = self._hub(str(resource["name"]))
        if found is None:
            return {}
        host, hub = found
        events = {
            "endpoint": f"{hub.events.endpoint}/",
            "path": hub.events.name,
            "partitionCount": hub.events.partition_count,
            "retentionTimeInDays": 1,
        }
        return {"hostName": host, "eventHubEndpoints": {"events": events}}

    def add_consumers(self, group: str) -> None:
        """Have a consumer group in each hub; no error where it is there."""
        for host in self._hubs():
            path = f"{self._consumers(name_of_host(host))}{group}"
            self.resources.adopt(path, CONSUMERS, group, {"properties": {"name": group}})

    def consumers(self, host: str) -> set[str]:
        """The consumer groups that the hub behind a host is read as."""
        below = self.resources.names_below(self._consumers(name_of_host(host)))
        return {DEFAULT_GROUP, *(name.rpartition("/")[2] for name in below)}

    def _consumers(self, hub: str) -> str:
        return f"{self.group}/providers/{_HUBS}/{hub}/eventHubEndpoints/events/ConsumerGroups/"

    def hub_at(self, host: str) -> MockHub:
        """The hub behind a host."""
        return self._hubs()[host]

    def _hub(self, name: str) -> tuple[str, MockHub] | None:
        """Host and hub behind a resource's name."""
        return next(
            ((host, hub) for host, hub in self._hubs().items() if name_of_host(host) == name), None
        )

    def list_keys(self, identity: str) -> Mapping[str, Any]:
        """The keys of the storage account, or the key of a policy of a hub.

        Raises:
            Refused: there is no such account, hub or policy.
        """
        if identity.lower() == self._account.lower() and self.resources.get(identity):
            keys = enumerate(self._storage.keys, 1)
            return {
                "keys": [
                    {"keyName": f"key{number}", "value": value, "permissions": "FULL"}
                    for number, value in keys
                ]
            }
        path, _, policy = identity.rpartition("/")
        found = self.resources.get(path.rpartition("/")[0])
        hub = None if found is None else self._hub(str(found["name"]))
        if hub is None or policy not in HUB_POLICIES:
            raise Refused(404, "ResourceNotFound", f"There are no keys of {identity}.")
        key = hub_key(hub[1].name, policy)
        return {"keyName": policy, "primaryKey": key, "secondaryKey": key}

    # The provisioning service

    def _known_service(self, resource: Mapping[str, Any]) -> None:
        if resource["name"] != name_of_host(self._provisioning_host()):
            raise Refused(
                400, "BadRequest", f"This mock has no host for a service named {resource['name']}."
            )

    def _shown_service(self, resource: Mapping[str, Any]) -> Mapping[str, Any]:
        linked = [
            {**one, "connectionString": "***", "name": _host_of(one["connectionString"])}
            for one in resource.get("properties", {}).get("iotHubs", ())
        ]
        return {
            "iotHubs": linked,
            "idScope": self.provisioning.scope,
            "serviceOperationsHostName": self._provisioning_host(),
        }

    # Storage

    @property
    def _account(self) -> str:
        return f"{self.group}/providers/{_ACCOUNTS}/{self._storage.name}"

    def _containers(self) -> None:
        """Know the containers that Blob storage has, also those that were made there."""
        start = f"{self._account}/blobServices/default/containers/"
        with self._storage.lock:
            there = set(self._storage.containers)
        for name in there:
            self.resources.adopt(f"{start}{name}", _CONTAINERS, name, {})
        for name in self.resources.names_below(start):
            if name not in there:
                self.resources.forget(f"{start}{name}")

    def _made(self, one: Mapping[str, Any]) -> None:
        inside = str(one["id"]).lower().startswith(f"{self._account.lower()}/")
        with self._storage.lock:
            if inside and one["name"] not in self._storage.containers:
                self._storage.create(str(one["name"]))

    def _removed(self, one: Mapping[str, Any]) -> None:
        inside = str(one["id"]).lower().startswith(f"{self._account.lower()}/")
        with self._storage.lock:
            if inside and one["name"] in self._storage.containers:
                self._storage.delete(str(one["name"]))

    # Kept over restarts

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Resources, deployments, enrolment groups."""
        return {"arm": self.deployments.kept(), "provisioning": self.provisioning.kept()}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have what there was."""
        self.deployments.restore(kept["arm"])
        self.provisioning.restore(kept["provisioning"])
        self.grants.refresh()


class _Hubs:
    """Hubs as the provisioning service reaches them."""

    def __init__(self, management: Management) -> None:
        self._management = management

    def hosts(self) -> Sequence[str] | None:
        services = list(self._management.resources.of_type(_DPS))
        if not services:
            return None
        return [
            str(one["name"]) for service in services for one in service["properties"]["iotHubs"]
        ]

    def put(self, host: str, device: str, *, edge: bool, twin: Mapping[str, Any]) -> None:
        state = self._management.hub_at(host).state
        if (device, None) in state.identities:
            return
        keys = {"primaryKey": key(), "secondaryKey": key()}
        with state.changing():
            state.add(Identity(device, None, {"type": "sas", "symmetricKey": keys}, edge=edge))
            desired = (twin.get("properties") or {}).get("desired") or {}
            state.change_twin(
                device, None, tags=twin.get("tags") or {}, desired=desired, replace=True
            )


def _host_of(connection_string: str) -> str:
    fields = dict(part.partition("=")[::2] for part in connection_string.split(";"))
    return str(fields.get("HostName", ""))
