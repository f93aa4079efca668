"""What each part must be allowed, by Azure's names, and where.

Azure allows actions of management and data actions; both are named here alike, and `is_data` tells
them apart. Each stands at the place that it is needed at, so that a role reaches no further.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgefleet_azure.resource_names import ResourceNames

_BLOBS = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"
_CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
_ACCOUNTS = "Microsoft.Storage/storageAccounts"
_HUBS = "Microsoft.Devices/IotHubs"
_DPS = "Microsoft.Devices/provisioningServices"
_ML = "Microsoft.MachineLearningServices/workspaces"
_SHARED = "Microsoft.MachineLearningServices/registries"
_SIZES = "Microsoft.MachineLearningServices/locations/vmSizes/read"
_DEPLOYMENTS = "Microsoft.Resources/deployments"
_IMAGES = "Microsoft.ContainerRegistry/registries"
_ROLES = "Microsoft.Authorization"

MODELS, STATE, DEVICES, TRAINING = "models", "state", "devices", "training"  # containers
ACCOUNT, HUB, WORKSPACE, DPS, GROUP = "account", "hub", "workspace", "dps", "group"
SUBSCRIPTION, SHARED = "subscription", "shared"
PLACES = (
    MODELS, STATE, DEVICES, TRAINING, ACCOUNT, HUB, WORKSPACE, SHARED, DPS, GROUP, SUBSCRIPTION
)  # fmt: skip
"""Where something may be allowed: containers of the fleet, its storage account, its hubs, the
workspace, the shared registry, the provisioning service, the resource group, and the subscription,
whose machine sizes are asked for there alone."""

_REGISTRY: dict[str, tuple[str, ...]] = {
    MODELS: (f"{_BLOBS}/read", f"{_BLOBS}/write"),
    STATE: (f"{_BLOBS}/read", f"{_BLOBS}/write"),
}

OPERATOR: dict[str, dict[str, tuple[str, ...]]] = {
    "registry": {
        **_REGISTRY,
        WORKSPACE: (
            f"{_ML}/datastores/read",
            f"{_ML}/datastores/write",
            f"{_ML}/models/versions/read",
            f"{_ML}/models/versions/write",
        ),
    },
    "shared registry": {
        **_REGISTRY,
        SHARED: (
            f"{_SHARED}/assets/read",
            f"{_SHARED}/assets/stage/write",
            f"{_SHARED}/assets/write",
            f"{_SHARED}/read",
        ),
    },
    "trainer": {
        TRAINING: (f"{_CONTAINERS}/write", f"{_BLOBS}/read", f"{_BLOBS}/write"),
        WORKSPACE: (
            f"{_ML}/components/versions/write",
            f"{_ML}/computes/read",
            f"{_ML}/datastores/read",
            f"{_ML}/datastores/write",
            f"{_ML}/environments/versions/read",
            f"{_ML}/environments/versions/write",
            f"{_ML}/experiments/runs/read",
            f"{_ML}/jobs/cancel/action",
            f"{_ML}/jobs/read",
            f"{_ML}/jobs/write",
            f"{_ML}/read",
        ),
        SUBSCRIPTION: (_SIZES,),
    },
    "state": {STATE: (f"{_BLOBS}/delete", f"{_BLOBS}/read", f"{_BLOBS}/write")},
    "telemetry": {
        DEVICES: (f"{_BLOBS}/read",),
        HUB: (f"{_HUBS}/twins/read",),
        GROUP: (f"{_HUBS}/IotHubKeys/listkeys/action", f"{_HUBS}/read"),
    },
    "receiving": {DEVICES: (f"{_BLOBS}/write",)},
    "deployer": {
        MODELS: (f"{_CONTAINERS}/getAcl/action", f"{_CONTAINERS}/setAcl/action"),
        STATE: (f"{_BLOBS}/read", f"{_BLOBS}/write"),
        DEVICES: (f"{_CONTAINERS}/getAcl/action", f"{_CONTAINERS}/setAcl/action"),
        ACCOUNT: (f"{_ACCOUNTS}/listKeys/action",),
        HUB: (
            f"{_HUBS}/configurations/delete",
            f"{_HUBS}/configurations/read",
            f"{_HUBS}/configurations/write",
            f"{_HUBS}/devices/delete",
            f"{_HUBS}/devices/read",
            f"{_HUBS}/devices/write",
            f"{_HUBS}/directMethods/invoke/action",
            f"{_HUBS}/twins/read",
            f"{_HUBS}/twins/write",
        ),
    },
    "install": {
        HUB: (
            f"{_HUBS}/configurations/delete",
            f"{_HUBS}/configurations/read",
            f"{_HUBS}/configurations/write",
            f"{_HUBS}/twins/read",
        ),
        GROUP: (
            f"{_ROLES}/roleAssignments/delete",
            f"{_ROLES}/roleAssignments/read",
            f"{_ROLES}/roleAssignments/write",
            f"{_ROLES}/roleDefinitions/delete",
            f"{_ROLES}/roleDefinitions/read",
            f"{_ROLES}/roleDefinitions/write",
            f"{_IMAGES}/delete",
            f"{_IMAGES}/read",
            f"{_IMAGES}/write",
            f"{_HUBS}/delete",
            f"{_HUBS}/eventHubEndpoints/consumerGroups/delete",
            f"{_HUBS}/eventHubEndpoints/consumerGroups/read",
            f"{_HUBS}/eventHubEndpoints/consumerGroups/write",
            f"{_HUBS}/iotHubKeys/listkeys/action",
            f"{_HUBS}/read",
            f"{_HUBS}/write",
            f"{_DPS}/delete",
            f"{_DPS}/read",
            f"{_DPS}/write",
            f"{_DEPLOYMENTS}/delete",
            f"{_DEPLOYMENTS}/read",
            f"{_DEPLOYMENTS}/whatIf/action",
            f"{_DEPLOYMENTS}/write",
            f"{_ACCOUNTS}/blobServices/containers/delete",
            f"{_ACCOUNTS}/blobServices/containers/read",
            f"{_ACCOUNTS}/blobServices/containers/write",
            f"{_ACCOUNTS}/delete",
            f"{_ACCOUNTS}/read",
            f"{_ACCOUNTS}/write",
        ),
        DPS: (
            f"{_DPS}/attestationmechanism/details/action",
            f"{_DPS}/enrollmentGroups/delete",
            f"{_DPS}/enrollmentGroups/read",
            f"{_DPS}/enrollmentGroups/write",
        ),
    },
}
"""What an operator of each part must be allowed, by place."""

_DATA = (
    f"{_BLOBS}/",
    f"{_HUBS}/configurations/",
    f"{_HUBS}/devices/",
    f"{_HUBS}/directMethods/",
    f"{_HUBS}/twins/",
    f"{_DPS}/enrollmentGroups/",
    f"{_DPS}/attestationmechanism/",
)
# "Azure built-in roles", https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
BUILT_IN: dict[str, tuple[str, ...]] = {
    MODELS: ("Storage Blob Data Owner",),
    STATE: ("Storage Blob Data Contributor",),
    DEVICES: ("Storage Blob Data Owner",),
    TRAINING: ("Storage Blob Data Contributor",),
    ACCOUNT: ("Storage Account Key Operator Service Role",),
    HUB: ("IoT Hub Data Contributor",),
    WORKSPACE: ("AzureML Data Scientist",),
    SHARED: ("AzureML Registry User",),
    DPS: ("Device Provisioning Service Data Contributor",),
    GROUP: ("Contributor", "Role Based Access Control Administrator"),
    SUBSCRIPTION: ("Reader",),
}
"""Azure's own roles that hold what is needed at a place, and more."""


def registry_part(ml_registry: str | None) -> str:
    """The part that who registers versions needs.

    Args:
        ml_registry: name of the shared registry; None where versions are shown in the workspace.
    """
    return "registry" if ml_registry is None else "shared registry"


def is_data(action: str) -> bool:
    """Whether an action is on data: roles list those apart."""
    return action.startswith(_DATA)


def permissions(actions: Iterable[str]) -> dict[str, list[str]]:
    """The permissions of a role definition."""
    named = sorted(set(actions))
    return {
        "actions": [one for one in named if not is_data(one)],
        "notActions": [],
        "dataActions": [one for one in named if is_data(one)],
        "notDataActions": [],
    }


def operators(parts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What somebody who does all of these parts must be allowed, by place."""
    found: dict[str, set[str]] = {}
    for part in parts:
        for place, actions in OPERATOR[part].items():
            found.setdefault(place, set()).update(actions)
    return {place: tuple(sorted(found[place])) for place in PLACES if place in found}


def role(name: str, actions: Iterable[str], scopes: Iterable[str]) -> dict[str, Any]:
    """A custom role as ``az role definition create --role-definition`` takes it."""
    held = permissions(actions)
    return {
        "Name": name,
        "IsCustom": True,
        "Description": "The least that EdgeFleet needs here",
        "Actions": held["actions"],
        "NotActions": [],
        "DataActions": held["dataActions"],
        "NotDataActions": [],
        "AssignableScopes": [*scopes],
    }


def scopes(
    names: ResourceNames, workspace: str | None, dps: str | None, shared: str | None = None
) -> dict[str, list[str]]:
    """The resource ids that each place stands for, as far as the fleet has it.

    Args:
        names: of the fleet's resources.
        workspace: name of it.
        dps: name of the provisioning service.
        shared: the shared registry, which lies anywhere.
    """
    container = "Microsoft.Storage/storageAccounts/blobServices/containers"
    found = {
        kind: [names.of(container, names.storage, "default", name)]
        for kind, name in names.containers.items()
    }
    found[ACCOUNT] = [names.of(_ACCOUNTS, names.storage)]
    found[HUB] = [names.of(_HUBS, name) for name in names.hubs.values()]
    found[WORKSPACE] = [] if workspace is None else [names.of(_ML, workspace)]
    found[SHARED] = [] if shared is None else [shared]
    found[DPS] = [] if dps is None else [names.of(_DPS, dps)]
    found[GROUP] = [names.group]
    found[SUBSCRIPTION] = [names.group.partition("/resourceGroups/")[0]]
    return found


def readable(document: Mapping[str, Any]) -> str:
    """A role as people read it: an action a line."""
    return json.dumps(document, indent=2)
