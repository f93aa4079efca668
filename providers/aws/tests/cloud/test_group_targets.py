"""A deployment to a thing group is one for each of its members, also for those that join later."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_aws.cloud.recipes import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock

RECIPE = b"""\
RecipeFormatVersion: "2020-01-25"
ComponentName: com.acme.Empty
ComponentVersion: 1.0.0
Manifests: [{Platform: {os: linux, runtime: "*"}}]
"""
COMPONENTS = {"com.acme.Empty": {"componentVersion": "1.0.0"}}


class Line:
    """A thing group, and core devices that join it."""

    def __init__(self, cloud: AwsMock, clients: Clients) -> None:
        self._site = cloud.fleet.greengrass.site
        self._clients = clients
        self._greengrass: Any = clients.greengrass
        self.arn = clients.iot.create_thing_group(thingGroupName="line")["thingGroupArn"]
        self._greengrass.create_component_version(inlineRecipe=RECIPE)

    def join(self, *things: str) -> None:
        for thing, kind in zip(things, Kind, strict=False):
            self._clients.iot.create_thing(thingName=thing)
            self._clients.iot.add_thing_to_thing_group(thingGroupName="line", thingName=thing)
            self._site.add(thing, kind, {"PATH": os.environ["PATH"]})

    def deploy(self) -> str:
        reply = self._greengrass.create_deployment(targetArn=self.arn, components=COMPONENTS)
        return str(reply["deploymentId"])

    def done(self, thing: str) -> list[tuple[str, str]]:
        """Ids and statuses of a device's deployments, once none of them is under way."""

        def ended() -> list[tuple[str, str]] | None:
            reply = self._greengrass.list_effective_deployments(coreDeviceThingName=thing)
            found = [
                (one["deploymentId"], one["coreDeviceExecutionStatus"])
                for one in reply["effectiveDeployments"]
            ]
            going = {status for _, status in found} & {"QUEUED", "IN_PROGRESS"}
            return None if going else found

        return eventually(ended, f"deployments of {thing} end", meanwhile=self._site.wake)


@pytest.fixture
def line(cloud: AwsMock, clients: Clients) -> Iterator[Line]:
    yield Line(cloud, clients)
    cloud.fleet.remove()


def test_every_member_carries_out_a_groups_deployment(line: Line) -> None:
    line.join("cam-1", "cam-2")
    deployment = line.deploy()
    assert line.done("cam-1") == line.done("cam-2") == [(deployment, "SUCCEEDED")]


def test_who_joins_later_carries_out_the_latest_alone(line: Line) -> None:
    line.join("cam-1")
    line.deploy()
    line.done("cam-1")
    latest = line.deploy()
    line.join("cam-3")
    assert line.done("cam-3") == [(latest, "SUCCEEDED")]
