"""The page of permissions, written from the list.

``python -m edgefleet_azure.permissions_page > docs/reference/azure-permissions.md``; a test holds
that file against it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edgefleet_azure.permissions import BUILT_IN, OPERATOR, readable, role, scopes
from edgefleet_azure.resource_names import ResourceNames
from edgefleet_azure.settings import AzureSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
_HEAD = """\
# Permissions on Azure

<!-- Made by `python -m edgefleet_azure.permissions_page`; don't edit. -->

The least that each part needs, as custom roles, one for each place: give a person the roles of the
parts that they use, each at its place. `edgefleet install` makes such roles and assigns them to
those that the setting `operators` names, with all parts but `install`. `SUBSCRIPTION`, `GROUP`,
`ACCOUNT`, `HUB`, `WORKSPACE`, `REGISTRY`, `DPS` and `PREFIX` stand for yours.

Tests run parts with exactly these roles on the mock cloud and compare them with the calls that were
made, for the parts that say so; nothing of it was tried in a real subscription. Azure's own roles
that are named beside them hold more than is needed.

`edgefleet doctor --profile P` tries each of these with a call that changes nothing, and names those
that are missing.
"""
_ABOUT = {
    "registry": "Push, approve, list and delete versions. Compared with the calls.",
    "shared registry": "The same, with `ml_registry`. Compared with the calls. The role at the "
    "shared registry is its\nowner's to assign: install changes nothing outside the resource "
    "group.",
    "state": "Releases, pointers and other shared documents. Compared with the calls.",
    "trainer": "Start, follow and stop training, and pipelines. Compared with the calls. The role "
    "at\nthe subscription is yours to assign: install changes nothing outside the resource group.",
    "deployer": "Enrol devices, deliver, read status, ask a device, renew access. The account's "
    "key signs what\ndevices may read and write. Compared with the calls.",
    "telemetry": "Read what devices recorded. The built-in endpoint of a hub knows no identities, "
    "so its key\nis asked for. Compared with the calls.",
    "receiving": "Write what devices of a gateway recorded, or a stick brings. Nobody else needs "
    "it, so doctor tries\nit where a gateway is in the profile, and warns. Compared with the "
    "calls.",
    "install": "`edgefleet install`, its dry run and its teardown. Whoever may write role "
    "assignments may do\nanything. Deleting is for `--teardown`, the place `dps` for "
    "`provision_group`. Compared with the\ncalls.",
}
_PLACES = {
    "models": "the container `PREFIX-models`",
    "state": "the container `PREFIX-state`",
    "devices": "the container `PREFIX-devices`",
    "training": "the container `PREFIX-training`",
    "account": "the storage account",
    "hub": "each IoT Hub",
    "workspace": "the Azure ML workspace",
    "shared": "the shared Azure ML registry, wherever it lies",
    "dps": "the provisioning service",
    "group": "the resource group",
    "subscription": "the subscription, where machine sizes are asked for",
}
_DEVICES = """\
## Devices

A device has no identity in Azure's roles. It reads blobs and writes its own with signatures under a
stored access policy, which operators renew; IoT Hub takes from it what it says in its own name.
Pulling the runtime's image from a private registry needs credentials of the registry's, in the base
deployment or on the host.
"""


def page() -> str:
    """The page as Markdown."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    settings = AzureSettings(
        storage_url="https://account.blob.core.windows.net",
        subscription=_SUBSCRIPTION,
        resource_group="GROUP",
        prefix="prefix",
        workspace="WORKSPACE",
        hubs=("HUB.azure-devices.net",),
    )
    shared = (
        f"{settings.group_path}/providers/Microsoft.MachineLearningServices/registries/REGISTRY"
    )
    where = scopes(ResourceNames(settings), settings.workspace, "DPS", shared)
    yield _HEAD
    yield "## Operators\n"
    for part, places in OPERATOR.items():
        yield f"### {part}\n"
        yield f"{_ABOUT[part]}\n"
        for place, actions in places.items():
            roles = ", ".join(BUILT_IN[place])
            yield f"At {_PLACES[place]}; of Azure's own: {roles}.\n"
            scopes_there = [_written(scope) for scope in where[place]]
            document = role(f"EdgeFleet {part}, {place}", actions, scopes_there)
            yield f"```json\n{readable(document)}\n```\n"
    yield _DEVICES.rstrip("\n") + "\n"


def _written(scope: str) -> str:
    return (
        scope.replace(_SUBSCRIPTION, "SUBSCRIPTION")
        .replace("/account", "/ACCOUNT")
        .replace("/prefix-", "/PREFIX-")
    )


if __name__ == "__main__":
    sys.stdout.write(page())
