"""A release to many groups: what it costs in calls, what a group that fails does to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import AccessDeniedError, AccessExpiredError, DeploymentFailedError
from edgefleet.fleet import Fleet
from edgefleet.interfaces.policy import RolloutPolicy
from edgefleet.profile import Profile
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.rollout import Crowd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

MODEL = "digits:1"


@pytest.fixture
def fleet(cloud: AwsMock, settings: AwsSettings, tmp_path: Path) -> Iterator[Fleet]:
    """A fleet with a model and no groups."""
    facts = settings.model_dump(mode="json", exclude_none=True)
    profile = Profile(name="test", base=tmp_path, provider="aws", settings={"aws": facts})
    with Fleet(profile) as fleet:
        fleet.push(samples.bundle(tmp_path, 1, size=400), "digits", progress=False)
        yield fleet
    cloud.fleet.remove()


@pytest.fixture
def make_groups(cloud: AwsMock, clients: Clients, settings: AwsSettings) -> MakeGroups:
    return MakeGroups(cloud, clients, settings)


class MakeGroups:
    """Makes groups whose devices are there as a number."""

    def __init__(self, cloud: AwsMock, clients: Clients, settings: AwsSettings) -> None:
        self._cloud, self._iot, self._prefix = cloud, clients.iot, settings.prefix

    def __call__(self, names: list[str], *, devices: int = 0) -> None:
        for name in names:
            made = self._iot.create_thing_group(thingGroupName=f"{self._prefix}:{name}")
            self._cloud.fleet.greengrass.populate(made["thingGroupArn"], Crowd(devices))


def calls(cloud: AwsMock) -> int:
    return len(list(cloud.seen()))


def answers(cloud: AwsMock, start: int) -> list[str]:
    """What was answered to CreateDeployment since then, repeated calls included."""
    lines = [line.split(" ") for line in list(cloud.seen())[start:]]
    return [line[3] for line in lines if line[1] == "greengrassv2.CreateDeployment"]


def costs(cloud: AwsMock, fleet: Fleet, to: str) -> tuple[int, int]:
    """Calls that planning and launching take."""
    start = calls(cloud)
    fleet.plan_rollout(MODEL, to=to, progress=False)
    planned = calls(cloud)
    fleet.roll_out(MODEL, to=to, progress=False)
    return planned - start, calls(cloud) - planned


def test_calls_do_not_depend_on_the_number_of_devices(
    cloud: AwsMock, fleet: Fleet, make_groups: MakeGroups
) -> None:
    make_groups(["first"])
    fleet.roll_out(MODEL, to="first", progress=False)  # what only the first release of all needs
    make_groups(["few-1", "few-2"], devices=1)
    few = costs(cloud, fleet, "few-*")
    make_groups(["many-1", "many-2"], devices=500_000)
    assert costs(cloud, fleet, "many-*") == few


def test_each_further_group_costs_the_same_few_calls(
    cloud: AwsMock, fleet: Fleet, make_groups: MakeGroups
) -> None:
    make_groups(["first"])
    fleet.roll_out(MODEL, to="first", progress=False)
    make_groups([f"a-{n}" for n in range(2)])
    two = costs(cloud, fleet, "a-*")
    make_groups([f"b-{n}" for n in range(4)])
    four = costs(cloud, fleet, "b-*")
    make_groups([f"c-{n}" for n in range(8)])
    eight = costs(cloud, fleet, "c-*")
    for phase in (0, 1):
        assert eight[phase] - four[phase] == 2 * (four[phase] - two[phase])
    each = (eight[1] - four[1]) // 4
    assert each <= 20


def test_a_group_that_fails_holds_up_no_other_and_is_made_up_for(
    cloud: AwsMock, fleet: Fleet, make_groups: MakeGroups
) -> None:
    make_groups([f"line-{n}" for n in range(5)])
    fault = Fault("ValidationException", "one component too many")
    cloud.rules.add(Rule("greengrassv2.CreateDeployment", skip=2, fault=fault))
    with pytest.raises(DeploymentFailedError, match="given to 4 groups, 1 failed") as caught:
        fleet.roll_out(MODEL, to="line-*", progress=False)
    assert "one component too many" in str(caught.value)
    assert "call it again" in str(caught.value)
    assert sum(fleet.group_status(f"line-{n}").published for n in range(5)) == 4
    again = fleet.roll_out(MODEL, to="line-*", progress=False)
    assert not again.failed
    assert all(fleet.group_status(f"line-{n}").published for n in range(5))


DENIED = Fault(
    "AccessDeniedException", "you are not authorized to perform: greengrass:CreateDeployment"
)
EXPIRED = Fault("ExpiredTokenException", "the security token is expired")


@pytest.mark.parametrize(
    "fault,kind,said",
    [
        (DENIED, AccessDeniedError, "let the identity in use do greengrass:CreateDeployment"),
        (EXPIRED, AccessExpiredError, "aws sso login"),
    ],
    ids=["denied", "expired"],
)
def test_what_would_fail_everywhere_ends_the_launch(  # noqa: PLR0917 - fixtures and cases
    cloud: AwsMock,
    fleet: Fleet,
    make_groups: MakeGroups,
    fault: Fault,
    kind: type[Exception],
    said: str,
) -> None:
    make_groups([f"line-{n}" for n in range(40)])
    cloud.rules.add(Rule("greengrassv2.CreateDeployment", times=None, fault=fault))
    start = calls(cloud)
    with pytest.raises(DeploymentFailedError, match=said) as caught:
        fleet.roll_out(MODEL, to="line-*", progress=False)
    assert isinstance(caught.value.__cause__, kind)
    assert len(answers(cloud, start)) < 40


def test_groups_are_throttled_and_all_get_there(
    cloud: AwsMock, fleet: Fleet, make_groups: MakeGroups
) -> None:
    make_groups([f"line-{n}" for n in range(6)])
    fault = Fault("ThrottlingException", "Rate exceeded", 429)
    cloud.rules.add(Rule("greengrassv2.CreateDeployment", skip=1, times=3, fault=fault))
    start = calls(cloud)
    launch = fleet.roll_out(MODEL, to="line-*", progress=False)
    assert not launch.failed
    answered = answers(cloud, start)
    assert (answered.count("201"), answered.count("429")) == (6, 3)


def test_a_policy_goes_with_each_group(
    cloud: AwsMock, fleet: Fleet, make_groups: MakeGroups
) -> None:
    make_groups(["line-1", "line-2"], devices=50)
    fleet.roll_out(MODEL, to="line-*", policy=RolloutPolicy(per_minute=1), progress=False)
    for group in ("line-1", "line-2"):
        rollout = fleet.group_status(group).rollout
        assert rollout is not None
        assert rollout.state == "open"
        assert rollout.devices["queued"] > 0


def test_only_another_policy_makes_a_launch_begin_anew(
    cloud: AwsMock, fleet: Fleet, make_groups: MakeGroups
) -> None:
    make_groups(["line-1"])

    def changes(policy: RolloutPolicy | None) -> bool:
        launch = fleet.roll_out(MODEL, to="line-1", policy=policy, progress=False)
        return launch.groups[0].changed

    slow = RolloutPolicy(per_minute=1)
    assert changes(slow)
    assert not changes(slow)
    assert not changes(None)
    assert changes(RolloutPolicy(per_minute=2))
