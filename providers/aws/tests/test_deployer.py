"""What only Greengrass does: revisions that replace, foreign components, shadows of 8 KB."""

from __future__ import annotations

import itertools
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from edgefleet.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
    LimitExceededError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.interfaces.values import Action
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_aws import revisions
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.install import publish_component
from edgefleet_aws.names import RELEASE
from edgefleet_aws.recipes import release_recipe
from edgefleet_aws.shadows import read_shadow
from edgefleet_aws.state import S3StateStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

GROUP = "line-3"
CAMERA = {
    "componentVersion": "2.1.0",
    "configurationUpdate": {"merge": '{"fps": 25}', "reset": ["/gain"]},
    "runWith": {"posixUser": "camera"},
}


@pytest.fixture
def deployer(
    cloud: AwsMock, clients: Clients, settings: AwsSettings
) -> Iterator[GreengrassDeployer]:
    """A deployer with a group of one device."""
    store = S3StateStore(clients, settings)
    deployer = GreengrassDeployer(clients, settings, state=lambda: store)
    deployer.enroll("cam-1", group=GROUP)
    yield deployer
    cloud.fleet.remove()


class Target:
    """A group's thing group, as others see it who deploy to it too."""

    def __init__(self, clients: Clients, settings: AwsSettings) -> None:
        self._greengrass = clients.greengrass
        name = f"{settings.prefix}:{GROUP}"
        self.arn = clients.iot.describe_thing_group(thingGroupName=name)["thingGroupArn"]

    def revise(self, **changes: Any) -> None:
        """Somebody else's revision: their components beside what is there."""
        there = self.latest()
        components = {**there.get("components", {}), **changes}
        self._greengrass.create_deployment(
            targetArn=self.arn, components=components, deploymentName="theirs"
        )

    def latest(self) -> dict[str, Any]:
        listed = self._greengrass.list_deployments(targetArn=self.arn)["deployments"]
        if not listed:
            return {}
        return self._greengrass.get_deployment(deploymentId=listed[0]["deploymentId"])


@pytest.fixture
def target(deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings) -> Target:
    return Target(clients, settings)


def test_the_first_release_of_all_makes_the_empty_component(
    deployer: GreengrassDeployer, clients: Clients
) -> None:
    rendered = {one.path: one for one in deployer.render(GROUP, samples.pointer(1))}
    recipe = rendered["recipe-edgefleet.Release-1.0.0.yaml"]
    assert recipe.action is Action.CREATE
    assert yaml.safe_load(recipe.content) == release_recipe()
    deployer.publish(GROUP, samples.pointer(1))
    pages = clients.greengrass.get_paginator("list_components").paginate(scope="PRIVATE")
    names = [one["componentName"] for page in pages for one in page["components"]]
    assert names == [RELEASE]
    assert len(deployer.render(GROUP, samples.pointer(2))) == 1


def test_a_foreign_component_survives_ten_releases_and_a_rollback(
    deployer: GreengrassDeployer, target: Target
) -> None:
    target.revise(camera=CAMERA)
    for number in range(1, 11):
        deployer.publish(GROUP, samples.pointer(number))
    deployer.publish(GROUP, samples.pointer(11))  # to an old release: a pointer like any other
    found = target.latest()
    assert found["components"]["camera"] == CAMERA
    assert found["deploymentName"] == "theirs"
    assert deployer.pointer(GROUP) == samples.pointer(11)


def test_a_foreign_edit_that_comes_between_is_kept(
    deployer: GreengrassDeployer, target: Target, clients: Clients
) -> None:
    deployer.publish(GROUP, samples.pointer(1))
    greengrass: Any = clients.greengrass
    edits = iter([partial(target.revise, camera=CAMERA)])

    def between(**_: Any) -> None:
        """After our first look, and before the second."""
        edit = next(edits, None)
        if edit is not None:
            edit()

    event = "after-call.greengrassv2.GetDeployment"
    looks = iter(range(3))

    def seen(**_: Any) -> None:
        if next(looks, None) == 1:  # the first look is the pointer's, the second the revision's
            between()

    greengrass.meta.events.register(event, seen)
    deployer.publish(GROUP, samples.pointer(2))
    greengrass.meta.events.unregister(event, seen)
    assert next(edits, None) is None, "the edit was made"
    assert target.latest()["components"]["camera"] == CAMERA
    assert deployer.pointer(GROUP) == samples.pointer(2)


def test_a_publisher_that_died_before_its_deployment_is_made_up_for(
    deployer: GreengrassDeployer, cloud: AwsMock
) -> None:
    fault = Fault("AccessDeniedException", "not authorized to perform: greengrass:CreateDeployment")
    cloud.rules.add(Rule("greengrassv2.CreateDeployment", fault=fault))
    with pytest.raises(AccessDeniedError, match="greengrass:CreateDeployment"):
        deployer.publish(GROUP, samples.pointer(5))
    assert deployer.pointer(GROUP) is None
    with pytest.raises(ConflictError):
        deployer.publish(GROUP, samples.pointer(4))
    deployer.publish(GROUP, samples.pointer(5))
    assert deployer.pointer(GROUP) == samples.pointer(5)


def test_what_others_wrote_into_our_component_is_replaced(
    deployer: GreengrassDeployer, target: Target
) -> None:
    update = {"merge": json.dumps({"pointer": 7})}
    target.revise(**{RELEASE: {"componentVersion": "1.0.0", "configurationUpdate": update}})
    assert deployer.pointer(GROUP) is None
    deployer.publish(GROUP, samples.pointer(1))
    assert deployer.pointer(GROUP) == samples.pointer(1)


def test_throttling_is_waited_out_and_then_told(
    deployer: GreengrassDeployer,
    cloud: AwsMock,
    make_settings: Callable[..., AwsSettings],
    make_clients: Callable[[AwsSettings], Clients],
    settings: AwsSettings,
) -> None:
    fault = Fault("ThrottlingException", "Rate exceeded", 429)
    cloud.rules.add(Rule("greengrassv2.CreateDeployment", times=1, fault=fault))
    deployer.publish(GROUP, samples.pointer(1))
    assert deployer.pointer(GROUP) == samples.pointer(1)
    once = make_settings(prefix=settings.prefix, max_attempts=1)
    store = S3StateStore(make_clients(once), once)
    hasty = GreengrassDeployer(make_clients(once), once, state=lambda: store)
    cloud.rules.add(Rule("greengrassv2.CreateDeployment", times=1, fault=fault))
    with pytest.raises(ThrottledError):
        hasty.publish(GROUP, samples.pointer(2))


@pytest.mark.parametrize("name", ["cam.1", "a.b-c"])
def test_names_that_aws_iot_does_not_take_are_refused(
    deployer: GreengrassDeployer, name: str
) -> None:
    with pytest.raises(InvalidInputError, match="AWS IoT takes no device"):
        deployer.enroll(name, group=GROUP)
    with pytest.raises(InvalidInputError, match="AWS IoT takes no group"):
        deployer.enroll("cam-2", group=name)


def test_groups_of_a_fleet_with_a_similar_name_are_not_ours(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    for name in (f"{settings.prefix}-b:line-4", f"{settings.prefix}-line-5", "elsewhere"):
        clients.iot.create_thing_group(thingGroupName=name)
    assert [group.name for group in deployer.groups()] == [GROUP]


def test_a_thing_that_is_there_is_adopted_as_it_is(
    deployer: GreengrassDeployer, clients: Clients
) -> None:
    iot: Any = clients.iot
    iot.create_thing(thingName="old", attributePayload={"attributes": {"line": "3"}})
    deployer.enroll("old", group=GROUP)
    assert iot.describe_thing(thingName="old")["attributes"] == {"line": "3"}
    deployer.retire("old")
    assert iot.describe_thing(thingName="old")["thingName"] == "old"


def test_labels_leave_the_report_its_room(deployer: GreengrassDeployer) -> None:
    with pytest.raises(LimitExceededError, match="labels"):
        deployer.label("cam-1", {"note": "x" * 255, "more": "y" * 255})


def test_a_request_too_long_for_a_message_is_refused_before_it_is_sent(
    deployer: GreengrassDeployer, cloud: AwsMock
) -> None:
    deployer.enroll("cam-long", group=GROUP)
    with pytest.raises(LimitExceededError, match="AWS IoT carries"):
        deployer.invoke("cam-long", "/v2/models/digits/infer", body=bytes(100_000))
    assert not any("iot-data.Publish" in line for line in cloud.seen() if "cam-long" in line)


def test_an_answer_is_read_once_and_removed(
    deployer: GreengrassDeployer, cloud: AwsMock, clients: Clients, settings: AwsSettings
) -> None:
    def answer(topic: str, payload: bytes) -> None:
        """The device's side, without a device."""
        number = json.loads(payload)["id"]
        key = f"{settings.prefix}/devices/cam-1/replies/{number}.json"
        body = json.dumps({"status": 200, "headers": {"a": "b"}, "body": "aGk="}).encode()
        clients.s3.put_object(Bucket=settings.bucket, Key=key, Body=body)

    cloud.fleet.install(settings)
    topic = f"{settings.prefix}/devices/cam-1/invoke"
    cloud.fleet.greengrass.devices.subscribe("cam-1", topic, answer)
    assert deployer.invoke("cam-1", "/v2") == (200, {"a": "b"}, b"hi")
    listed = clients.s3.get_paginator("list_objects_v2").paginate(
        Bucket=settings.bucket, Prefix=f"{settings.prefix}/devices/cam-1/replies/"
    )
    assert [one for page in listed for one in page.get("Contents", ())] == []


def test_a_silent_device_is_told_as_that(deployer: GreengrassDeployer) -> None:
    with pytest.raises(UnavailableError, match="doesn't answer"):
        deployer.invoke("cam-1", "/v2", timeout_s=0.01)


def test_a_component_version_with_other_content_is_refused(
    deployer: GreengrassDeployer, clients: Clients
) -> None:
    recipe = release_recipe()
    publish_component(clients.greengrass, recipe)
    publish_component(clients.greengrass, recipe)
    with pytest.raises(ConflictError, match=r"edgefleet.Release 1.0.0") as caught:
        publish_component(clients.greengrass, {**recipe, "ComponentDescription": "somebody else's"})
    assert "another version" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'{"state": 3}',
        b'{"state": {"reported": {"report": []}, "desired": {"labels": 3}}}',
        b'{"state": {"reported": {"report": [3]}}}',
        b'{"state": {"reported": {"report": [{}]}}, "metadata": {"reported": {"state": 3}}}',
    ],
)
def test_no_shadow_breaks_the_reader(data: bytes) -> None:
    shadow = read_shadow(data)
    assert (shadow.labels, shadow.report) == ({}, None)


def test_calls_of_a_release_do_not_grow_with_the_number_of_devices(
    deployer: GreengrassDeployer, cloud: AwsMock
) -> None:
    numbers = itertools.count(2)

    def calls() -> int:
        before = len(list(cloud.seen()))
        deployer.publish(GROUP, samples.pointer(next(numbers)))
        return len(list(cloud.seen())) - before

    def fewest() -> int:
        """Without those that are repeated on a machine with much to do."""
        return min(calls() for _ in range(3))

    deployer.publish(GROUP, samples.pointer(1))
    with_one = fewest()
    for number in range(2, 22):
        deployer.enroll(f"cam-{number}", group=GROUP)
    assert fewest() == with_one


def test_the_groups_that_are_made_are_tagged_with_their_fleet(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.enroll("cam-tagged", group="line-9", labels={})
    iot: Any = clients.iot
    for name in (settings.prefix, f"{settings.prefix}:line-9"):
        arn = iot.describe_thing_group(thingGroupName=name)["thingGroupArn"]
        tags = iot.list_tags_for_resource(resourceArn=arn)["tags"]
        assert tags == [{"Key": "edgefleet", "Value": settings.prefix}]


def test_a_configuration_that_devices_could_not_get_is_refused() -> None:
    with pytest.raises(LimitExceededError, match="7168 are allowed"):
        revisions.with_settings({"targetArn": "x"}, {"endpoint": "x" * 7168})
