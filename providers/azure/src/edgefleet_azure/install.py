"""What a fleet needs before its first device: services, roles, an enrolment group, a deployment.

Every step may be repeated: what is there stays, and what others put beside it as well. A service
that is there is adopted; one that install made carries its tag, and is kept by a teardown unless
the data are to go. Edge devices that are there are touched by no step: enrolling one adds tags.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import AccessDeniedError, ConfigurationError
from edgefleet.interfaces.abilities import CanInstall
from edgefleet.interfaces.answers import read_answer
from edgefleet.interfaces.values import Action, Rendered
from edgefleet_azure.answers import Page
from edgefleet_azure.bases import Bases
from edgefleet_azure.blobs import AzureBlobStore
from edgefleet_azure.deployment import FleetDeployment, parameters_document
from edgefleet_azure.errors import translate
from edgefleet_azure.groups import DeviceGroups
from edgefleet_azure.hub_routes import HubRoute
from edgefleet_azure.hubs import Hubs
from edgefleet_azure.provisioning import EnrollmentGroup, device_documents, same
from edgefleet_azure.resource_names import ResourceNames, name_of_host
from edgefleet_azure.service import AzureService
from edgefleet_azure.shared_registry import SharedRegistry
from edgefleet_azure.template import (
    ASSIGNMENT,
    CONSUMER_GROUP,
    CONSUMERS,
    CONTAINER,
    DPS_API,
    HUB_API,
    HUBS,
    MAKE_DPS,
    MAKE_STORAGE,
    PROVISIONING,
    ROLE,
    ROLES_API,
    STORAGE,
    STORAGE_API,
    make_hub,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings


class Installation:
    """A fleet's side of Azure.

    Args:
        clients: to reach Azure with.
        settings: of the fleet.
        base: folder that relative paths in settings start from.
    """

    def __init__(self, clients: Clients, settings: AzureSettings, base: Path = Path()) -> None:
        self._clients, self._settings = clients, settings
        self._names = ResourceNames(settings)
        self._deployment = FleetDeployment(clients, settings)
        self._bases = Bases(clients, settings)
        self._routes = [HubRoute(clients, self._names, host) for host in settings.hubs]
        self._enrollment = EnrollmentGroup(clients, settings, base)

    def install(self) -> None:
        """Have every device of the fleet run the runtime, those that join later too.

        Raises:
            ConfigurationError: Azure refuses the template, or the profile lacks something.
        """
        self._check()
        self._deployment.apply(self._deployment.parameters())
        for path in self._stale():
            self._deployment.remove(path, ROLES_API)
        for route in self._routes:
            route.add()
        self._bases.apply()
        if self._settings.provision_group is not None:
            hub = self._hub_of_new()
            self._linked(hub)
            self._enrollment.apply(self._enrollment.document(hub))

    def documents(self) -> Iterator[Rendered]:
        """What `install` would send, and whether that is there already."""
        self._check()
        parameters = self._deployment.parameters()
        action = self._deployment.action(parameters)
        name = self._names.deployment
        template = json.dumps(self._deployment.template, indent=2).encode() + b"\n"
        yield Rendered(path=f"{name}.json", content=template, action=action)
        yield Rendered(path=f"{name}.bicep", content=self._deployment.bicep.encode(), action=action)
        content = parameters_document(parameters)
        yield Rendered(path=f"{name}-parameters.json", content=content, action=action)
        for route in self._routes:
            yield from route.documents()
        yield from self._bases.documents(self._hubs())
        if self._settings.provision_group is not None:
            yield from self._for_new_devices()

    def uninstall(self, *, data: bool) -> None:
        """Take the runtime off the devices, and what operators may do away.

        Services that install made stay, because they hold models, images and the identities of
        devices; so do the devices' tags.

        Args:
            data: delete the fleet's containers, and services that install made, where nothing of
                others is in them.
        """
        self._bases.remove(self._hubs())
        if self._settings.dps is not None and self._dps() is not None:
            self._enrollment.remove()
        for path in (*self._assignments(), *self._roles()):
            self._deployment.remove(path, ROLES_API)
        for route in self._routes:
            route.remove()
        for host in self._hubs():
            if not self._bases.shared(host):  # else others still read as it
                name = self._names.hubs[host]
                consumers = self._names.of(CONSUMERS, name, "events", CONSUMER_GROUP)
                self._deployment.remove(consumers, HUB_API)
        if data:
            self._remove_data()
        self._deployment.forget()

    def _check(self) -> None:
        settings = self._settings
        settings.needed("hubs", "installing")
        settings.needed("runtime_image", "installing")
        if settings.provision_group is not None:
            settings.needed("dps", "a group of new devices")
        self._find_shared_registry()
        account = self._deployment.resource(
            self._names.of(STORAGE, self._names.storage), STORAGE_API
        )
        if account is not None:
            _check_account(self._names.storage, account["properties"])

    def _find_shared_registry(self) -> None:
        """Refuse a shared registry that isn't there; whoever installs needn't be let in.

        Raises:
            NotFoundError: there is none of that name.
        """
        if self._settings.ml_registry is None:
            return
        registry = SharedRegistry(
            self._clients, self._settings, AzureBlobStore(self._clients, self._settings)
        )
        try:
            registry.find()
        except Exception as error:
            if not isinstance(translate(error), AccessDeniedError):
                raise

    def _hubs(self) -> list[str]:
        """Hosts of the hubs that are there."""
        return [
            host
            for host, name in self._names.hubs.items()
            if self._deployment.resource(self._names.of(HUBS, name), HUB_API) is not None
        ]

    # Roles

    def _roles(self) -> list[str]:
        """Resource ids of our roles, of every place."""
        found = self._list(f"{self._names.group}/providers/{ROLE}")
        start = f"EdgeFleet {self._names.prefix}: "
        return [one["id"] for one in found if one["properties"]["roleName"].startswith(start)]

    def _assignments(self) -> list[str]:
        """Resource ids of all assignments of our roles."""
        ours = {path.rpartition("/")[2] for path in self._roles()}
        found = self._list(f"{self._names.group}/providers/{ASSIGNMENT}")
        return [
            one["id"]
            for one in found
            if one["properties"]["roleDefinitionId"].rpartition("/")[2] in ours
        ]

    def _stale(self) -> list[str]:
        """Assignments to those who are operators no more."""
        named = {one["name"] for one in self._deployment.template["resources"]}
        return [path for path in self._assignments() if path.rpartition("/")[2] not in named]

    def _list(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        where: str | None = path
        while where:
            page = read_answer(self._clients.arm("GET", where, api_version=ROLES_API), Page)
            found += page.value
            where = page.next_link
        return found

    # Devices that register themselves

    def _dps(self) -> dict[str, Any] | None:
        """The provisioning service as Azure Resource Manager has it; None for none."""
        path = self._names.of(PROVISIONING, name_of_host(str(self._settings.dps)))
        return self._deployment.resource(path, DPS_API)

    def _hub_of_new(self) -> str:
        """Host of the hub that the group of new devices is in, or will be in."""
        group, hubs = str(self._settings.provision_group), self._settings.hubs
        there = tuple(self._hubs())
        groups = DeviceGroups(Hubs(self._clients, there), self._settings.prefix)
        return groups.host_for(group, planned=[host for host in hubs if host not in there])

    def _linked(self, hub: str) -> None:
        """Refuse a provisioning service that knows nothing of the new devices' hub."""
        properties = (self._dps() or {}).get("properties", {})
        known = {str(one.get("name", "")).lower() for one in properties.get("iotHubs") or ()}
        if hub.lower() not in known:
            raise ConfigurationError(
                f"the provisioning service {self._settings.dps} has no link to the hub {hub}",
                cure=f"link them: az iot dps linked-hub create --dps-name "
                f"{name_of_host(str(self._settings.dps))} --hub-name {self._names.hubs[hub]}",
            )

    def _for_new_devices(self) -> Iterator[Rendered]:
        wanted = self._enrollment.document(self._hub_of_new())
        service = self._dps()
        there = None if service is None else self._enrollment.read()
        if there is None:
            action = Action.CREATE
        else:
            action = Action.UNCHANGED if same(there, wanted) else Action.UPDATE
        path = f"enrollment-{self._names.enrollment_group}.json"
        content = json.dumps(wanted, indent=2).encode() + b"\n"
        yield Rendered(path=path, content=content, action=action)
        scope = None if service is None else service["properties"].get("idScope")
        for name, text in device_documents(self._settings, scope):
            yield Rendered(path=name, content=text, action=Action.UNCHANGED)

    # Data

    def _remove_data(self) -> None:
        """Delete containers, then the services of ours that are empty by then."""
        names = self._names
        left = {}
        for parameter, path, version in self._deployment.services():
            there = self._deployment.resource(path, version)
            if there is not None:
                left[parameter] = (path, version, self._deployment.is_ours(there))
        if MAKE_STORAGE in left:
            for name in names.containers.values():
                container = names.of(CONTAINER, names.storage, "default", name)
                self._deployment.remove(container, STORAGE_API)
        kept = {MAKE_STORAGE} if MAKE_STORAGE in left and self._containers() else set()
        kept |= {make_hub(host) for host in self._hubs() if self._bases.others(host)}
        # A service is deleted before the hubs that it is linked to.
        for parameter in sorted(left, key=lambda one: one != MAKE_DPS):
            path, version, ours = left[parameter]
            if ours and parameter not in kept:
                self._deployment.remove(path, version)

    def _containers(self) -> list[dict[str, Any]]:
        """Containers that are left in the storage account."""
        path = self._names.of(
            "Microsoft.Storage/storageAccounts/blobServices", self._names.storage, "default"
        )
        found = self._clients.arm("GET", f"{path}/containers", api_version=STORAGE_API)
        return read_answer(found, Page).value


def _check_account(name: str, properties: Mapping[str, Any]) -> None:
    """Refuse an account on which devices' access can't be.

    Raises:
        ConfigurationError: it has no folders, or takes no keys.
    """
    if not properties.get("isHnsEnabled", False):
        raise ConfigurationError(
            f"storage account {name} has no hierarchical namespace, without which no access is "
            "for one device's folder",
            cure="name another account in `storage_url`, or upgrade this one: az storage account "
            f"hns-migration start --type upgrade --name {name}",
        )
    if properties.get("allowSharedKeyAccess") is False:
        raise ConfigurationError(
            f"storage account {name} takes no shared keys, which devices' access is signed with",
            cure=f"az storage account update --name {name} --allow-shared-key-access true",
        )


class InstallsAzure(AzureService, CanInstall):
    """What a deployer on Azure installs, and how it proves what it may do."""

    needs = ("deployer", "install")
    _base: Path

    def _installation(self) -> Installation:
        return Installation(self._clients, self._settings, self._base)

    def _install(self, group: str | None) -> None:
        self._installation().install()

    def _install_documents(self, group: str | None) -> Iterator[Rendered]:
        return self._installation().documents()

    def _uninstall(self, data: bool) -> None:  # noqa: FBT001 - the interface's own
        self._installation().uninstall(data=data)
