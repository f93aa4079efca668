"""What a fleet needs before its first device: a stack, a thing group, components, a deployment.

Every step may be repeated: what is there stays, and what others put beside it as well. A bucket
that is there is adopted; one that install made is kept by a teardown, unless its data are to go.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConfigurationError, ConflictError
from edgefleet.interfaces.values import Action, Rendered
from edgefleet_aws import bucket, indexing, provisioning, revisions
from edgefleet_aws.errors import code_of
from edgefleet_aws.groups import ThingGroups, suppressed
from edgefleet_aws.names import Names
from edgefleet_aws.recipes import encoded, release_recipe
from edgefleet_aws.stack import Stack, parameters_document
from edgefleet_aws.template import INDEXING, MAKE_BUCKET
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
        self._stack = Stack(clients.cloudformation, settings)

    def install(self) -> None:
        """Have every device of the fleet install the runtime, those that join later too.

        Raises:
            ConflictError: a version of a component is there with another recipe.
        """
        before = self._stack.parameters() or {}
        parameters = self._parameters(before)
        self._stack.apply(parameters)
        self._index(before, parameters)
        target = self._things.make_fleet()
        if self._settings.provision_group is not None:
            self._things.make(self._settings.provision_group)
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
        """What `install` would send, and whether that is there already."""
        before = self._stack.parameters() or {}
        parameters = self._parameters(before)
        action = self._stack.action(parameters)
        name = self._stack.name
        yield Rendered(path=f"{name}.json", content=self._stack.body.encode(), action=action)
        content = parameters_document(parameters)
        yield Rendered(path=f"{name}-parameters.json", content=content, action=action)
        there = indexing.read(self._clients.iot) if self._indexes(before) else {}
        wanted = self._indexed(there, before, parameters)
        if wanted != there:
            content = indexing.document(wanted)
            yield Rendered(path="indexing.json", content=content, action=Action.UPDATE)
        for recipe in self._recipes:
            yield self._component(recipe)
        yield self._deployment()
        if self._settings.provision_group is not None:
            yield from self._for_new_devices()

    def _for_new_devices(self) -> Iterator[Rendered]:
        """What new devices start with; nothing that is sent to AWS."""
        iot = self._clients.iot
        endpoints = [
            str(iot.describe_endpoint(endpointType=kind)["endpointAddress"])
            for kind in ("iot:Data-ATS", "iot:CredentialProvider")
        ]
        region = str(iot.meta.region_name)
        for path, content in provisioning.device_documents(self._names, region, *endpoints):
            yield Rendered(path=path, content=content, action=Action.UNCHANGED)

    def _component(self, recipe: dict[str, Any]) -> Rendered:
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        there = _recipe_there(self._clients.greengrass, name, version)
        if there is None:
            action = Action.CREATE
        else:
            action = Action.UNCHANGED if there == recipe else Action.UPDATE
        path = f"recipe-{name}-{version}.yaml"
        return Rendered(path=path, content=encoded(recipe), action=action)

    def _deployment(self) -> Rendered:
        target = self._things.fleet_arn()
        there = latest(self._clients.greengrass, target)
        request = self._base(there, target)
        action = Action.CREATE if there is None else Action.UPDATE
        if there is not None and there.get("components") == request["components"]:
            action = Action.UNCHANGED
        path = f"deployment-{self._names.fleet_group}.json"
        return Rendered(path=path, content=revisions.document(request), action=action)

    def uninstall(self, *, data: bool) -> None:
        """Take our components off the devices, and the stack away.

        Thing groups stay, because they hold the user's things, and component versions, because
        other deployments may name them.

        Args:
            data: delete all that the fleet has in its bucket, and the bucket itself if install
                made it and nothing else is in it.
        """
        target = self._things.fleet_arn()
        there = latest(self._clients.greengrass, target)
        if there is not None and revisions.has_ours(there, self._names):
            self._deploy(revisions.without_ours(there, target, self._names))
        with suppressed("ResourceNotFoundException"):
            self._clients.iot.detach_policy(policyName=self._names.devices, target=target)
        before = self._stack.parameters() or {}
        self._index(before, {**before, INDEXING: "no"})
        self._stack.remove()
        if data:
            bucket.empty(self._clients.s3, self._settings.bucket, f"{self._names.prefix}/")
            if before.get(MAKE_BUCKET) == "yes":
                bucket.remove_if_empty(self._clients.s3, self._settings.bucket)

    # The stack's parameters

    def _parameters(self, before: Mapping[str, str]) -> dict[str, str]:
        """What the stack is to be made with: what is there already isn't ours to make."""
        made = before.get(MAKE_BUCKET) == "yes" or not bucket.is_there(
            self._clients.s3, self._settings.bucket
        )
        if made and self._settings.endpoint_url is not None:
            raise ConfigurationError(
                f"there is no bucket {self._settings.bucket!r} at {self._settings.endpoint_url}",
                cure="make it there: install makes buckets on AWS only",
            )
        done = "no"
        if self._settings.fleet_indexing:
            there = indexing.read(self._clients.iot)
            others = (one.get(INDEXING, "no") for one in self._stack.others())
            done = indexing.to_do(there, before.get(INDEXING, "no"), others)
        return {MAKE_BUCKET: "yes" if made else "no", INDEXING: done}

    # Fleet indexing

    def _indexes(self, before: Mapping[str, str]) -> bool:
        """Whether the account's setting is, or was, this fleet's affair at all."""
        return self._settings.fleet_indexing or before.get(INDEXING, "no") != "no"

    def _indexed(
        self, there: Mapping[str, Any], before: Mapping[str, str], wanted: Mapping[str, str]
    ) -> dict[str, Any]:
        """The account's setting as it is to be."""
        if wanted.get(INDEXING, "no") != "no":
            return indexing.with_shadow(there)
        done = before.get(INDEXING, "no")
        if done == "no" or any(one.get(INDEXING, "no") != "no" for one in self._stack.others()):
            return dict(there)
        return indexing.without_shadow(there, done)

    def _index(self, before: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        """Change the account's setting where it isn't as it is to be."""
        if not self._indexes(before):
            return
        there = indexing.read(self._clients.iot)
        changed = self._indexed(there, before, wanted)
        if changed != there:
            indexing.write(self._clients.iot, changed)

    # Greengrass

    def _base(self, there: Mapping[str, Any] | None, target: str) -> dict[str, Any]:
        region = str(self._clients.greengrass.meta.region_name)
        told = revisions.base_settings(self._settings, region)
        return revisions.base(there, target, self._names, self._version, told)

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
