"""The template of a fleet: its containers, hubs, image registry, who may do what.

Pure: no call is made here. `description` is written in ARM's JSON and in Bicep.

- A service that is there already isn't in what is made: a parameter says for each whether it is
  ours. What lies in a service, such as a container or a consumer group, is made in either case.
- Roles hold what `permissions` lists, each at the place it is needed at, and no more.
- Nothing is removed by deploying: the mode is incremental. What install made carries its tag.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet_azure.description import Call, Description, Joined, Parameter, Resource
from edgefleet_azure.permissions import (
    ACCOUNT,
    DPS,
    GROUP,
    HUB,
    SHARED,
    SUBSCRIPTION,
    WORKSPACE,
    operators,
    permissions,
)
from edgefleet_azure.permissions import OPERATOR as PARTS
from edgefleet_azure.resource_names import KINDS, ResourceNames, name_of_host

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_azure.settings import AzureSettings

# API versions, all of them current and none a preview
STORAGE_API = "2023-05-01"
HUB_API = "2023-06-30"
DPS_API = "2022-12-12"
IMAGES_API = "2023-07-01"
ROLES_API = "2022-04-01"
ML_API = "2024-04-01"

STORAGE = "Microsoft.Storage/storageAccounts"
CONTAINER = f"{STORAGE}/blobServices/containers"
HUBS = "Microsoft.Devices/IotHubs"
CONSUMERS = f"{HUBS}/eventHubEndpoints/ConsumerGroups"
PROVISIONING = "Microsoft.Devices/provisioningServices"
IMAGES = "Microsoft.ContainerRegistry/registries"
WORKSPACES = "Microsoft.MachineLearningServices/workspaces"
ROLE = "Microsoft.Authorization/roleDefinitions"
ASSIGNMENT = "Microsoft.Authorization/roleAssignments"

MAKE_STORAGE, MAKE_IMAGES, MAKE_DPS = "makeStorage", "makeRegistry", "makeProvisioning"
"""Parameters: whether a service is the fleet's own."""
EVENTS_DAYS = 7  # the most that the built-in endpoint keeps
CONSUMER_GROUP = "edgefleet"
"""Consumer group of the built-in endpoint, for telemetry."""
MODULE = "edgefleet"
"""The runtime's module, as edge devices name it."""


def make_hub(host: str) -> str:
    """The parameter that says whether a hub is the fleet's own."""
    return "makeHub" + "".join(part.capitalize() for part in name_of_host(host).split("-"))


def description(settings: AzureSettings) -> Description:
    """The template of a fleet."""
    names = ResourceNames(settings)
    group_location = Call("resourceGroup", (), "location")
    parameters: dict[str, tuple[str, str, Any]] = {
        "location": ("string", "where services are made", group_location),
        MAKE_STORAGE: ("bool", "false: the storage account was there before", None),
    }
    for host in settings.hubs:
        parameters[make_hub(host)] = ("bool", f"false: the hub {host} was there before", None)
    if names.registry is not None:
        parameters[MAKE_IMAGES] = ("bool", "false: the container registry was there before", None)
    if settings.dps is not None:
        parameters[MAKE_DPS] = ("bool", "false: the provisioning service was there before", None)
    return Description(parameters, tuple(_resources(settings, names)))


def _resources(settings: AzureSettings, names: ResourceNames) -> Iterator[Resource]:
    yield from _storage(names)
    for number, host in enumerate(settings.hubs, 1):
        yield from _hub(names, f"hub{number}", host)
    if names.registry is not None:
        yield _images(names)
    if settings.dps is not None:
        yield _provisioning(settings, names)
    yield from _roles(settings, names)


def _storage(names: ResourceNames) -> Iterator[Resource]:
    """An account that nobody reads without leave; its containers are made in one that is there."""
    yield Resource(
        "storage",
        STORAGE,
        STORAGE_API,
        names.storage,
        {
            "location": Parameter("location"),
            "tags": names.tags,
            "sku": {"name": "Standard_LRS"},
            "kind": "StorageV2",
            "properties": {
                "accessTier": "Hot",
                "allowBlobPublicAccess": False,
                "allowSharedKeyAccess": True,  # devices' access is signed with the account's key
                "isHnsEnabled": True,  # a device's access is for its own folder, so there are some
                "minimumTlsVersion": "TLS1_2",
                "supportsHttpsTrafficOnly": True,
            },
        },
        condition=MAKE_STORAGE,
    )
    for kind in KINDS:
        yield Resource(
            kind,
            CONTAINER,
            STORAGE_API,
            f"{names.storage}/default/{names.containers[kind]}",
            {"properties": {"publicAccess": "None"}},
            needs=("storage",),
        )


def route(names: ResourceNames) -> dict[str, Any]:
    """The route of what the fleet's runtimes say, to the endpoint that telemetry reads.

    It is told apart by module, so that a hub with routes of others, whose messages no longer fall
    back to that endpoint, delivers ours there as well.
    """
    return {
        "name": names.route,
        "source": "DeviceMessages",
        "condition": f"$connectionModuleId = '{MODULE}'",
        "endpointNames": ["events"],
        "isEnabled": True,
    }


def _hub(names: ResourceNames, symbol: str, host: str) -> Iterator[Resource]:
    fallback = {
        "name": "$fallback",
        "source": "DeviceMessages",
        "condition": "true",
        "endpointNames": ["events"],
        "isEnabled": True,
    }
    name = names.hubs[host]
    yield Resource(
        symbol,
        HUBS,
        HUB_API,
        name,
        {
            "location": Parameter("location"),
            "tags": names.tags,
            "sku": {"name": "S1", "capacity": 1},
            "properties": {
                "minTlsVersion": "1.2",
                "eventHubEndpoints": {
                    "events": {"retentionTimeInDays": EVENTS_DAYS, "partitionCount": 4}
                },
                "routing": {"routes": [route(names)], "fallbackRoute": fallback},
            },
        },
        condition=make_hub(host),
    )
    yield Resource(
        f"{symbol}Consumers",
        CONSUMERS,
        HUB_API,
        f"{name}/events/{CONSUMER_GROUP}",
        {"properties": {"name": CONSUMER_GROUP}},
        needs=(symbol,),
    )


def _images(names: ResourceNames) -> Resource:
    """Where devices pull the runtime's image from."""
    return Resource(
        "images",
        IMAGES,
        IMAGES_API,
        str(names.registry),
        {
            "location": Parameter("location"),
            "tags": names.tags,
            "sku": {"name": "Basic"},
            "properties": {"adminUserEnabled": False, "anonymousPullEnabled": False},
        },
        condition=MAKE_IMAGES,
    )


def _provisioning(settings: AzureSettings, names: ResourceNames) -> Resource:
    """The service that new devices ask for their hub, linked to all of the fleet's."""
    linked = []
    for host, name in names.hubs.items():
        key = Call(
            "listKeys",
            (Call("resourceId", (f"{HUBS}/iotHubKeys", name, "iothubowner")), HUB_API),
            "primaryKey",
        )
        text = f"HostName={host};SharedAccessKeyName=iothubowner;SharedAccessKey="
        linked.append({"connectionString": Joined((text, key)), "location": Parameter("location")})
    return Resource(
        "provisioning",
        PROVISIONING,
        DPS_API,
        name_of_host(str(settings.dps)),
        {
            "location": Parameter("location"),
            "tags": names.tags,
            "sku": {"name": "S1", "capacity": 1},
            "properties": {"iotHubs": linked, "allocationPolicy": "Hashed"},
        },
        condition=MAKE_DPS,
        needs=tuple(f"hub{number}" for number in range(1, len(settings.hubs) + 1)),
    )


def _roles(settings: AzureSettings, names: ResourceNames) -> Iterator[Resource]:
    """For each place a role that holds what operators need there, and its assignments."""
    if not settings.operators:
        return
    if settings.workspace is not None:
        yield Resource("workspace", WORKSPACES, ML_API, settings.workspace, existing=True)
    other_registry = "shared registry" if settings.ml_registry is None else "registry"
    unused = {"install", "receiving", other_registry}
    needed = operators(part for part in PARTS if part not in unused)
    for place, actions in needed.items():
        symbols = _symbols(settings, place)
        if not symbols:
            continue
        guid = names.guid("role", place)
        yield Resource(
            f"{place}Role",
            ROLE,
            ROLES_API,
            guid,
            {
                "properties": {
                    "roleName": f"EdgeFleet {names.prefix}: {place} {guid[:8]}",
                    "description": f"What operators of the fleet {names.prefix} need there",
                    "type": "CustomRole",
                    "assignableScopes": [Call("resourceGroup", (), "id")],
                    "permissions": [permissions(actions)],
                }
            },
        )
        for number, (principal, symbol) in enumerate(
            ((one, symbol) for one in settings.operators for symbol in symbols), 1
        ):
            yield Resource(
                f"{place}Assignment{number}",
                ASSIGNMENT,
                ROLES_API,
                names.guid("assignment", place, symbol or "", principal),
                {
                    "properties": {
                        "principalId": principal,
                        "roleDefinitionId": Call("subscriptionResourceId", (ROLE, guid)),
                    }
                },
                scope=symbol,
                needs=(f"{place}Role",),
            )


def _symbols(settings: AzureSettings, place: str) -> tuple[str | None, ...]:
    """The resources that a place stands for; None for the group that is deployed to."""
    if place == GROUP:
        return (None,)
    if place in {SHARED, SUBSCRIPTION}:
        return ()  # out of reach of what is deployed to a group
    if place == HUB:
        return tuple(f"hub{number}" for number in range(1, len(settings.hubs) + 1))
    if place == DPS:
        return () if settings.dps is None else ("provisioning",)
    if place == WORKSPACE:
        return () if settings.workspace is None else ("workspace",)
    return ("storage" if place == ACCOUNT else place,)
