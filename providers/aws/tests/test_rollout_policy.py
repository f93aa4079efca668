"""A rollout's policy on Greengrass: what it becomes there, what it displaces, what stops it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import UnsupportedError
from edgefleet.interfaces.policy import Faster, RolloutPolicy, StopAfter
from edgefleet.testing.kit import samples
from edgefleet_aws.cloud.rollout import Crowd
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.pacing import paced
from edgefleet_aws.state import S3StateStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

GROUP = "line-3"
SLOW = RolloutPolicy(
    per_minute=50,
    faster=Faster(by=1.5, after=100, counting="succeeded"),
    stop_after=StopAfter(failed_percent=5, devices=20),
    on_failure="roll-back",
    timeout_s=600,
)
SLOW_JOB = {
    "jobExecutionsRolloutConfig": {
        "exponentialRate": {
            "baseRatePerMinute": 50,
            "incrementFactor": 1.5,
            "rateIncreaseCriteria": {"numberOfSucceededThings": 100},
        }
    },
    "abortConfig": {
        "criteriaList": [
            {
                "failureType": "ALL",
                "action": "CANCEL",
                "thresholdPercentage": 5.0,
                "minNumberOfExecutedThings": 20,
            }
        ]
    },
    "timeoutConfig": {"inProgressTimeoutInMinutes": 10},
}
THEIRS = {"jobExecutionsRolloutConfig": {"maximumPerMinute": 7}}


@pytest.fixture
def deployer(
    cloud: AwsMock, clients: Clients, settings: AwsSettings
) -> Iterator[GreengrassDeployer]:
    """A deployer with an empty group."""
    store = S3StateStore(clients, settings)
    clients.iot.create_thing_group(thingGroupName=f"{settings.prefix}:{GROUP}")
    yield GreengrassDeployer(clients, settings, state=lambda: store)
    cloud.fleet.remove()


@pytest.fixture
def target(deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings) -> str:
    """ARN of the group's thing group."""
    name = f"{settings.prefix}:{GROUP}"
    return str(clients.iot.describe_thing_group(thingGroupName=name)["thingGroupArn"])


def in_place(clients: Clients, target: str) -> dict[str, Any]:
    listed = clients.greengrass.list_deployments(targetArn=target)["deployments"]
    return clients.greengrass.get_deployment(deploymentId=listed[0]["deploymentId"])


def test_a_policy_becomes_job_configuration_and_failure_policy(
    deployer: GreengrassDeployer, clients: Clients, target: str
) -> None:
    deployer.publish(GROUP, samples.pointer(1), policy=SLOW)
    found = in_place(clients, target)
    assert found["iotJobConfiguration"] == SLOW_JOB
    assert found["deploymentPolicies"]["failureHandlingPolicy"] == "ROLLBACK"
    assert found["deploymentPolicies"]["componentUpdatePolicy"]["timeoutInSeconds"] == 60


def test_a_constant_rate_becomes_a_maximum(
    deployer: GreengrassDeployer, clients: Clients, target: str
) -> None:
    deployer.publish(GROUP, samples.pointer(1), policy=RolloutPolicy(per_minute=9))
    job = in_place(clients, target)["iotJobConfiguration"]
    assert job == {"jobExecutionsRolloutConfig": {"maximumPerMinute": 9}}


def test_publishing_under_a_policy_writes_what_was_rendered(
    deployer: GreengrassDeployer, clients: Clients, target: str
) -> None:
    (rendered, _) = deployer.render(GROUP, samples.pointer(1), policy=SLOW)
    deployer.publish(GROUP, samples.pointer(1), policy=SLOW)
    request, found = json.loads(rendered.content), in_place(clients, target)
    assert {key: found[key] for key in request} == request


def test_a_release_without_a_policy_goes_out_at_full_speed_again(
    deployer: GreengrassDeployer, clients: Clients, target: str
) -> None:
    deployer.publish(GROUP, samples.pointer(1))
    plain = in_place(clients, target)
    deployer.publish(GROUP, samples.pointer(2), policy=SLOW)
    deployer.publish(GROUP, samples.pointer(3))
    found = in_place(clients, target)
    assert "iotJobConfiguration" not in found
    assert found["deploymentPolicies"] == plain["deploymentPolicies"]


def test_what_others_configured_comes_back_after_a_policy(
    deployer: GreengrassDeployer, clients: Clients, target: str
) -> None:
    clients.greengrass.create_deployment(
        targetArn=target,
        iotJobConfiguration=THEIRS,
        deploymentPolicies={"failureHandlingPolicy": "ROLLBACK"},
    )
    keeps = SLOW.model_copy(update={"on_failure": "keep"})
    for number, policy in enumerate((keeps, SLOW, keeps), 1):
        deployer.publish(GROUP, samples.pointer(number), policy=policy)
    assert in_place(clients, target)["iotJobConfiguration"] == SLOW_JOB
    deployer.publish(GROUP, samples.pointer(9))
    found = in_place(clients, target)
    assert found["iotJobConfiguration"] == THEIRS
    assert found["deploymentPolicies"]["failureHandlingPolicy"] == "ROLLBACK"


def test_what_others_configured_meanwhile_stays() -> None:
    request = {"targetArn": "t", "iotJobConfiguration": {}}
    after, note = paced(request, "", SLOW)
    edited = {**after, "iotJobConfiguration": THEIRS}
    assert paced(edited, note, None)[0]["iotJobConfiguration"] == THEIRS


@pytest.mark.parametrize("note", ["{", "[]", "3", '{"policy": {"per_minute": -1}}', '{"job": {}}'])
def test_a_note_that_is_none_of_ours_undoes_nothing(note: str) -> None:
    request = {"targetArn": "t", "iotJobConfiguration": THEIRS}
    assert paced(request, note, None) == (request, "")


def test_what_greengrass_cannot_do_is_refused_before_anything_is_sent(
    deployer: GreengrassDeployer, cloud: AwsMock
) -> None:
    before = len(list(cloud.seen()))
    with pytest.raises(UnsupportedError, match="per_minute is 1 to 1000 here, not 5000"):
        deployer.publish(GROUP, samples.pointer(1), policy=RolloutPolicy(per_minute=5000))
    assert len(list(cloud.seen())) == before


def test_progress_counts_devices_in_a_fixed_number_of_calls(
    deployer: GreengrassDeployer, cloud: AwsMock, target: str
) -> None:
    assert deployer.progress(GROUP) is None
    cloud.fleet.greengrass.populate(target, Crowd(devices=1_000_000))
    deployer.publish(GROUP, samples.pointer(1), policy=RolloutPolicy(per_minute=1))
    before = len(list(cloud.seen()))
    progress = deployer.progress(GROUP)
    assert len(list(cloud.seen())) - before == 3
    assert progress is not None
    assert progress.state == "open"
    assert sum(progress.devices.values()) == 1_000_000
    assert progress.devices["succeeded"] >= 1


def test_a_rollout_whose_devices_fail_stops_and_says_why(
    deployer: GreengrassDeployer, cloud: AwsMock, target: str
) -> None:
    cloud.fleet.greengrass.populate(target, Crowd(devices=10_000, every_fails=1))
    stop = RolloutPolicy(stop_after=StopAfter(failed_percent=50, devices=1))
    deployer.publish(GROUP, samples.pointer(1), policy=stop)
    progress = deployer.progress(GROUP)
    assert progress is not None
    assert (progress.state, progress.why) == ("stopped", "1 of 1 devices failed")
    assert progress.devices == {"failed": 1, "canceled": 9_999}


def test_another_policy_lets_a_stopped_rollout_go_on(
    deployer: GreengrassDeployer, cloud: AwsMock, target: str
) -> None:
    cloud.fleet.greengrass.populate(target, Crowd(devices=10, every_fails=1))
    stop = RolloutPolicy(stop_after=StopAfter(failed_percent=50, devices=1))
    deployer.publish(GROUP, samples.pointer(1), policy=stop)
    deployer.publish(GROUP, samples.pointer(2), policy=RolloutPolicy(per_minute=1000))
    progress = deployer.progress(GROUP)
    assert progress is not None
    assert progress.state == "open"


def test_a_racing_operators_policy_goes_with_that_operators_pointer(
    deployer: GreengrassDeployer, clients: Clients, target: str
) -> None:
    greengrass: Any = clients.greengrass
    looks = iter(range(9))

    def between(**_: Any) -> None:
        """Another operator publishes after the first one's last look, and is overwritten."""
        if next(looks) == 0:
            deployer.publish(GROUP, samples.pointer(2), policy=SLOW)

    event = "before-call.greengrassv2.CreateDeployment"
    greengrass.meta.events.register(event, between)
    with pytest.raises(Exception, match="at the same time"):
        deployer.publish(GROUP, samples.pointer(1))
    greengrass.meta.events.unregister(event, between)
    assert deployer.pointer(GROUP) == samples.pointer(2)
    assert in_place(clients, target)["iotJobConfiguration"] == SLOW_JOB
