"""What a fleet needs in Greengrass before its first device: group, policy, components, deployment.

Every step may be repeated: what is there stays, and what others put beside it as well.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConflictError
from edgefleet_aws.errors import code_of
from edgefleet_aws.groups import ThingGroups
from edgefleet_aws.names import RELEASE, RELEASE_VERSION, RUNTIME, Names
from edgefleet_aws.recipes import encoded, release_recipe
from edgefleet_aws.revisions import KEPT, base_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings


def prepare_devices(clients: Clients, settings: AwsSettings, runtime: Mapping[str, Any]) -> None:
    """Have every device of the fleet install the runtime, those that join later too.

    Args:
        clients: to reach AWS with.
        settings: of the fleet; its stack must be there.
        runtime: recipe of the runtime's component.

    Raises:
        ConflictError: a version of a component is there with another recipe.
    """
    names = Names(settings)
    group = ThingGroups(clients, names).make_fleet()
    clients.iot.attach_policy(policyName=names.devices, target=group)
    for recipe in (release_recipe(), dict(runtime)):
        publish_component(clients, recipe)
    told = base_settings(settings, str(clients.greengrass.meta.region_name))
    _deploy_base(clients, f"{names.prefix} runtime", group, runtime["ComponentVersion"], told)


def publish_component(clients: Clients, recipe: dict[str, Any]) -> None:
    """Make a component's version; the same again changes nothing.

    Raises:
        ConflictError: that version is there with another recipe.
    """
    try:
        clients.greengrass.create_component_version(inlineRecipe=encoded(recipe))
    except Exception as error:
        if code_of(error) != "ConflictException":
            raise
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        if _recipe_there(clients, name, version) != recipe:
            raise ConflictError(
                f"component {name} {version} is there with another recipe",
                cure="a version never changes: install another version, or delete this one "
                "where no device uses it",
                retryable=False,
            ) from error


def _recipe_there(clients: Clients, name: str, version: str) -> object:
    for page in clients.greengrass.get_paginator("list_components").paginate(scope="PRIVATE"):
        for found in page.get("components", ()):
            if found["componentName"] == name:
                arn = f"{found['arn']}:versions:{version}"
                reply = clients.greengrass.get_component(arn=arn, recipeOutputFormat="JSON")
                return json.loads(reply["recipe"])
    return None


def _deploy_base(
    clients: Clients, name: str, group: str, version: str, told: Mapping[str, str]
) -> None:
    ours: dict[str, dict[str, Any]] = {
        RUNTIME: {"componentVersion": version},
        RELEASE: {
            "componentVersion": RELEASE_VERSION,
            "configurationUpdate": {"merge": json.dumps(told, sort_keys=True)},
        },
    }
    kept: dict[str, Any] = {"deploymentName": name}
    listed = clients.greengrass.list_deployments(
        targetArn=group, historyFilter="LATEST_ONLY", maxResults=1
    )
    for one in listed.get("deployments", ()):
        found = clients.greengrass.get_deployment(deploymentId=one["deploymentId"])
        kept = {key: found[key] for key in KEPT if found.get(key)}
    there = kept.get("components", {})
    if all(there.get(component) == wanted for component, wanted in ours.items()):
        return
    clients.greengrass.create_deployment(
        targetArn=group,
        clientToken=uuid.uuid4().hex,
        **{**kept, "components": {**there, **ours}},
    )
