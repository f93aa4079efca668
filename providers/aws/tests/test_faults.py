"""What goes wrong between operator, Greengrass and device, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import ConflictError, WaitTimeoutError
from edgefleet.fleet import Fleet
from edgefleet.interfaces.policy import RolloutPolicy
from edgefleet.profile import Profile
from edgefleet.testing.kit import samples
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_aws.cloud.rollout import Crowd
from edgefleet_aws.install import publish_component
from edgefleet_aws.recipes import release_recipe
from edgefleet_aws.revisions import pointer_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.cloud.fleet import DeviceFleet
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

GROUP = "line-3"
BROKEN = {
    "RecipeFormatVersion": "2020-01-25",
    "ComponentName": "com.acme.Broken",
    "ComponentVersion": "1.0.0",
    "Manifests": [
        {
            "Platform": {"os": "linux", "runtime": "*"},
            "Lifecycle": {"install": "echo no lens is there >&2; exit 7"},
        }
    ],
}


@pytest.fixture
def devices(cloud: AwsMock, settings: AwsSettings) -> Iterator[DeviceFleet]:
    """Core devices whose runtime runs nothing."""
    cloud.fleet.install(settings, lifecycle={})
    yield cloud.fleet
    cloud.fleet.remove()


@pytest.fixture
def fleet(devices: DeviceFleet, settings: AwsSettings, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of one group with one device, and two versions of a model."""
    assert devices is not None
    facts = settings.model_dump(mode="json", exclude_none=True)
    profile = Profile(name="test", base=tmp_path, provider="aws", settings={"aws": facts})
    with Fleet(profile) as fleet:
        for seed in (1, 2):
            bundle = samples.bundle(tmp_path, seed, size=400)
            fleet.push(bundle, "digits", progress=False)
        fleet.enroll("cam-1", group=GROUP)
        yield fleet


@pytest.fixture
def target(fleet: Fleet, clients: Clients, settings: AwsSettings) -> str:
    """ARN of the group's thing group."""
    assert fleet is not None
    name = f"{settings.prefix}:{GROUP}"
    return str(clients.iot.describe_thing_group(thingGroupName=name)["thingGroupArn"])


def latest(clients: Clients, target: str) -> dict[str, Any]:
    (one,) = clients.greengrass.list_deployments(targetArn=target)["deployments"]
    return clients.greengrass.get_deployment(deploymentId=one["deploymentId"])


def test_another_components_failure_is_told_and_what_it_took_back(
    fleet: Fleet, devices: DeviceFleet, clients: Clients, target: str
) -> None:
    devices.nuclei = (Kind.CLASSIC,)  # the light one knows no going back
    devices.power_on("cam-1", {})
    fleet.deploy("digits:1", to=GROUP)
    devices.greengrass.site.settle("cam-1")
    first = fleet.deployers["aws"].pointer(GROUP)
    assert first is not None
    clients.greengrass.create_component_version(inlineRecipe=json.dumps(BROKEN).encode())
    theirs = {**latest(clients, target)["components"]}
    theirs["com.acme.Broken"] = {"componentVersion": "1.0.0"}
    clients.greengrass.create_deployment(
        targetArn=target,
        components=theirs,
        deploymentName="theirs",
        deploymentPolicies={"failureHandlingPolicy": "ROLLBACK"},
    )
    fleet.deploy("digits:2", to=GROUP)
    devices.greengrass.site.settle("cam-1")
    held = devices.greengrass.site.nucleus("cam-1").configuration("edgefleet.Release")
    assert held is not None
    assert json.loads(held["pointer"])["number"] == first.number, "ours was taken back with theirs"
    page = fleet.why("cam-1")
    assert "didn't take deployment theirs: FAILED" in page.step
    assert "no lens is there" in page.step
    assert "deploy again" in page.cure
    assert any("deployment theirs: FAILED" in line for line in page.evidence)
    assert "1 failed" in fleet.group_status(GROUP).headline


def test_a_revision_takes_the_place_of_a_rollout_that_is_under_way(
    fleet: Fleet, cloud: AwsMock, clients: Clients, target: str
) -> None:
    cloud.fleet.greengrass.populate(target, Crowd(devices=1_000))
    fleet.deploy("digits:1", to=GROUP, policy=RolloutPolicy(per_minute=1))
    slow = latest(clients, target)
    assert slow["deploymentStatus"] == "ACTIVE"
    second = fleet.deploy("digits:2", to=GROUP)
    now = latest(clients, target)
    found = pointer_of(now)
    assert found is not None
    assert found.number == second.number
    assert "iotJobConfiguration" not in now
    before = clients.greengrass.get_deployment(deploymentId=slow["deploymentId"])
    assert before["deploymentStatus"] == "INACTIVE"
    rollout = fleet.group_status(GROUP).rollout
    assert rollout is not None
    assert rollout.state == "open"


def test_a_device_that_never_answers_is_named_and_hangs_nobody(fleet: Fleet) -> None:
    deployment = fleet.deploy("digits:1", to=GROUP)
    with pytest.raises(WaitTimeoutError, match=r"cam-1: has never reported") as caught:
        deployment.wait(timeout_s=0, progress=False)
    assert "fleet.status()" in str(caught.value)
    page = fleet.why("cam-1")
    assert "cloud: core device: none" in page.evidence
    assert "start the device" in page.cure


def test_a_group_without_devices_takes_a_release_for_those_that_join(
    fleet: Fleet, clients: Clients, settings: AwsSettings
) -> None:
    clients.iot.create_thing_group(thingGroupName=f"{settings.prefix}:empty")
    plan = fleet.plan("digits:1", to="empty")
    assert "no devices yet" in " ".join(plan.warnings)
    status = fleet.deploy("digits:1", to="empty").wait(timeout_s=0, progress=False)
    assert (status.devices, status.models, status.published) == ((), ("digits:1",), True)


def test_our_components_version_with_other_content_stops_a_release_and_tells_the_cure(
    cloud: AwsMock, fleet: Fleet, clients: Clients, settings: AwsSettings
) -> None:
    cloud.fleet.greengrass.stop()  # as in an account that nothing was installed in
    clients.iot.create_thing_group(thingGroupName=f"{settings.prefix}:other")
    strange = {**release_recipe(), "ComponentDescription": "somebody else's"}
    publish_component(clients.greengrass, strange)
    with pytest.raises(ConflictError, match=r"edgefleet\.Release 1\.0\.0") as caught:
        fleet.deploy("digits:1", to="other")
    assert "delete this one" in str(caught.value)
    assert fleet.deployers["aws"].pointer("other") is None
