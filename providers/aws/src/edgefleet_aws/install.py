"""What a fleet needs before its first device: a stack, a thing group, components, a deployment.

Every step may be repeated: what is there stays, and what others put beside it as well. The bucket
is the operator's own and is neither made nor removed.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConflictError
from edgefleet.interfaces.values import Action, Rendered
from edgefleet_aws import revisions, stack
from edgefleet_aws.errors import code_of
from edgefleet_aws.groups import ThingGroups, suppressed
from edgefleet_aws.names import Names
from edgefleet_aws.recipes import encoded, release_recipe
from edgefleet_aws.wheelhouse import upload

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet_aws.clients import Clients, Greengrass
    from edgefleet_aws.settings import AwsSettings
    from edgefleet_aws.wheelhouse import Archive


class Installation:
    """A fleet's side of AWS.

    Args:
        clients: to reach AWS with.
        settings: of the fleet.
        runtime: recipe of the runtime's component.
        archive: that this recipe names as its artifact; None for a recipe without.
    """

    def __init__(
        self,
        clients: Clients,
        settings: AwsSettings,
        runtime: Mapping[str, Any],
        archive: Archive | None = None,
    ) -> None:
        self._clients, self._settings = clients, settings
        self._names = Names(settings)
        self._things = ThingGroups(clients, self._names)
        self._archive = archive
        self._recipes = (release_recipe(), dict(runtime))
        self._version = str(runtime["ComponentVersion"])

    def install(self) -> None:
        """Have every device of the fleet install the runtime, those that join later too.

        Raises:
            ConflictError: a version of a component is there with another recipe.
        """
        stack.apply(self._clients.cloudformation, self._settings)
        target = self._things.make_fleet()
        self._clients.iot.attach_policy(policyName=self._names.devices, target=target)
        if self._archive is not None:
            upload(self._clients.s3, self._settings, self._archive)
        for recipe in self._recipes:
            publish_component(self._clients.greengrass, recipe)
        there = latest(self._clients.greengrass, target)
        request = self._base(there, target)
        if there is None or there.get("components") != request["components"]:
            self._deploy(request)

    def documents(self) -> Iterator[Rendered]:
        """What `install` would send.

        Whether it is there already is told for the deployment only: CloudFormation and Greengrass
        compare the rest themselves.
        """
        yield Rendered(
            path=f"stack-{self._names.stack}.json",
            content=stack.body(self._settings).encode(),
            action=Action.UPDATE,
        )
        for recipe in self._recipes:
            path = f"recipe-{recipe['ComponentName']}-{recipe['ComponentVersion']}.yaml"
            yield Rendered(path=path, content=encoded(recipe), action=Action.UPDATE)
        target = self._things.fleet_arn()
        there = latest(self._clients.greengrass, target)
        request = self._base(there, target)
        action = Action.CREATE if there is None else Action.UPDATE
        if there is not None and there.get("components") == request["components"]:
            action = Action.UNCHANGED
        path = f"deployment-{self._names.fleet_group}.json"
        yield Rendered(path=path, content=revisions.document(request), action=action)

    def uninstall(self) -> None:
        """Take our components off the devices, and the stack away.

        Thing groups stay, because they hold the user's things, and component versions, because
        other deployments may name them.
        """
        target = self._things.fleet_arn()
        there = latest(self._clients.greengrass, target)
        if there is not None and revisions.OURS & (there.get("components") or {}).keys():
            self._deploy(revisions.without_ours(there, target))
        with suppressed("ResourceNotFoundException"):
            self._clients.iot.detach_policy(policyName=self._names.devices, target=target)
        stack.remove(self._clients.cloudformation, self._settings)

    def _base(self, there: Mapping[str, Any] | None, target: str) -> dict[str, Any]:
        region = str(self._clients.greengrass.meta.region_name)
        told = revisions.base_settings(self._settings, region)
        name = f"{self._names.prefix} runtime"
        return revisions.base(there, target, name, self._version, told)

    def _deploy(self, request: Mapping[str, Any]) -> None:
        token = uuid.uuid4().hex
        self._clients.greengrass.create_deployment(**request, clientToken=token)


def latest(greengrass: Greengrass, target: str) -> dict[str, Any] | None:
    """The deployment that counts for a target; None for none."""
    found = latest_id(greengrass, target)
    return None if found is None else greengrass.get_deployment(deploymentId=found)


def latest_id(greengrass: Greengrass, target: str) -> str | None:
    """The id of the deployment that counts for a target; None for none."""
    listed = greengrass.list_deployments(
        targetArn=target, historyFilter="LATEST_ONLY", maxResults=1
    )
    return next((str(one["deploymentId"]) for one in listed.get("deployments", ())), None)


def publish_component(greengrass: Greengrass, recipe: dict[str, Any]) -> None:
    """Make a component's version; the same again changes nothing.

    Raises:
        ConflictError: that version is there with another recipe.
    """
    try:
        greengrass.create_component_version(inlineRecipe=encoded(recipe))
    except Exception as error:
        if code_of(error) != "ConflictException":
            raise
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        if _recipe_there(greengrass, name, version) != recipe:
            raise ConflictError(
                f"component {name} {version} is there with another recipe",
                cure="a version never changes: install another version, or delete this one "
                "where no device uses it",
                retryable=False,
            ) from error


def _recipe_there(greengrass: Greengrass, name: str, version: str) -> object:
    for page in greengrass.get_paginator("list_components").paginate(scope="PRIVATE"):
        for found in page.get("components", ()):
            if found["componentName"] == name:
                arn = f"{found['arn']}:versions:{version}"
                reply = greengrass.get_component(arn=arn, recipeOutputFormat="JSON")
                return json.loads(reply["recipe"])
    return None
