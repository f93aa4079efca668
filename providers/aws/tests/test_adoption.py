"""Core devices and thing groups that were there before the fleet: adopted, and left as they are."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import NotFoundError
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.names import Names
from edgefleet_aws.state import S3StateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.cloud.nucleus import Nucleus
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

THING = "press-7"
THEIRS = "PressShop"
CAMERA = "com.example.Camera"
RECIPE = {
    "RecipeFormatVersion": "2020-01-25",
    "ComponentName": CAMERA,
    "ComponentVersion": "2.1.0",
    "Manifests": [
        {
            "Platform": {"os": "linux", "runtime": "*"},
            "Lifecycle": {"run": "exec sleep 1000"},
        }
    ],
}


@pytest.fixture(params=list(Kind), ids=lambda kind: kind.value)
def nucleus(request: pytest.FixtureRequest, cloud: AwsMock, clients: Clients) -> Iterator[Nucleus]:
    """A core device that runs somebody else's component, by their own thing group."""
    iot, greengrass = clients.iot, clients.greengrass
    iot.create_thing(thingName=THING)
    arn = iot.create_thing_group(thingGroupName=THEIRS)["thingGroupArn"]
    iot.add_thing_to_thing_group(thingGroupName=THEIRS, thingName=THING)
    greengrass.create_component_version(inlineRecipe=json.dumps(RECIPE).encode())
    greengrass.create_deployment(
        targetArn=arn, deploymentName="theirs", components={CAMERA: {"componentVersion": "2.1.0"}}
    )
    site = cloud.fleet.greengrass.site
    site.add(THING, request.param, {"PATH": os.environ["PATH"]})
    site.settle(THING)
    yield site.nucleus(THING)
    cloud.fleet.remove()


@pytest.fixture
def deployer(clients: Clients, settings: AwsSettings) -> GreengrassDeployer:
    return GreengrassDeployer(clients, settings, state=lambda: S3StateStore(clients, settings))


def theirs(clients: Clients) -> dict[str, Any]:
    arn = clients.iot.describe_thing_group(thingGroupName=THEIRS)["thingGroupArn"]
    (found,) = clients.greengrass.list_deployments(targetArn=arn)["deployments"]
    deployment = clients.greengrass.get_deployment(deploymentId=found["deploymentId"])
    return {key: value for key, value in deployment.items() if key != "ResponseMetadata"}


def test_a_core_device_gets_the_runtime_and_keeps_what_it_ran(
    nucleus: Nucleus,
    cloud: AwsMock,
    clients: Clients,
    settings: AwsSettings,
    deployer: GreengrassDeployer,
) -> None:
    before, camera = theirs(clients), nucleus.process_id(CAMERA)
    cloud.fleet.install(settings)
    deployer.enroll(THING, group="line-3")
    cloud.fleet.greengrass.site.settle(THING)
    assert nucleus.process_id(Names(settings).runtime) is not None
    assert nucleus.process_id(CAMERA) == camera is not None
    assert theirs(clients) == before


def test_retiring_a_core_device_leaves_it_as_it_was(
    nucleus: Nucleus,
    cloud: AwsMock,
    clients: Clients,
    settings: AwsSettings,
    deployer: GreengrassDeployer,
) -> None:
    camera = nucleus.process_id(CAMERA)
    cloud.fleet.install(settings)
    deployer.enroll(THING, group="line-3")
    cloud.fleet.greengrass.site.settle(THING)
    deployer.retire(THING)
    clients.iot.describe_thing(thingName=THING)
    groups = clients.iot.get_paginator("list_thing_groups_for_thing").paginate(thingName=THING)
    assert [one["groupName"] for page in groups for one in page["thingGroups"]] == [THEIRS]
    assert nucleus.process_id(CAMERA) == camera is not None


def test_a_thing_group_of_their_own_becomes_a_group_with_its_devices(
    nucleus: Nucleus,
    cloud: AwsMock,
    clients: Clients,
    make_settings: Callable[..., AwsSettings],
) -> None:
    settings = make_settings(runtime_python=sys.executable, thing_groups={"line-3": THEIRS})
    deployer = GreengrassDeployer(clients, settings, state=lambda: S3StateStore(clients, settings))
    cloud.fleet.greengrass.devices.role_alias = f"{settings.prefix}-devices"
    before, camera = theirs(clients), nucleus.process_id(CAMERA)
    deployer.install(group="line-3")
    cloud.fleet.greengrass.site.settle(THING)
    assert [group.name for group in deployer.groups()] == ["line-3"]
    assert [device.name for device in deployer.devices("line-3")] == [THING]
    assert nucleus.process_id(Names(settings).runtime) is not None
    assert nucleus.process_id(CAMERA) == camera is not None
    assert theirs(clients) == before


def test_a_thing_group_that_is_not_there_is_not_made(
    cloud: AwsMock, clients: Clients, make_settings: Callable[..., AwsSettings]
) -> None:
    settings = make_settings(runtime_python="/usr/bin/python3", thing_groups={"line-3": "Nobodys"})
    deployer = GreengrassDeployer(clients, settings, state=lambda: S3StateStore(clients, settings))
    with pytest.raises(NotFoundError, match="Nobodys"):
        deployer.install(group="line-3")
    cloud.fleet.remove()


def test_devices_with_a_role_of_their_own_read_the_fleets_blobs(
    nucleus: Nucleus,
    cloud: AwsMock,
    clients: Clients,
    make_settings: Callable[..., AwsSettings],
    make_clients: Callable[[AwsSettings], Clients],
) -> None:
    settings = make_settings(runtime_python="/usr/bin/python3", device_roles=("TheirExchange",))
    iam: Any = clients.get("iam")
    iot: Any = clients.iot
    trust = {"Effect": "Allow", "Principal": {"Service": "x"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    role = iam.create_role(RoleName="TheirExchange", AssumeRolePolicyDocument=document)["Role"]
    iot.create_role_alias(roleAlias="TheirAlias", roleArn=role["Arn"])
    devices = cloud.fleet.greengrass.devices
    devices.own_aliases[THING] = "TheirAlias"
    place = f"arn:aws:s3:::{settings.bucket}/{settings.prefix}"
    blob = f"{place}/blobs/sha256/0"
    assert not devices.may(THING, "s3:GetObject", blob)
    fresh = make_clients(settings)
    GreengrassDeployer(fresh, settings, state=lambda: S3StateStore(fresh, settings)).install()
    assert devices.may(THING, "s3:GetObject", blob)
    assert devices.may(THING, "s3:PutObject", f"{place}/devices/{THING}/segments/1")
    assert not devices.may(THING, "s3:PutObject", f"{place}/devices/other/segments/1")
    assert nucleus.process_id(CAMERA) is not None
