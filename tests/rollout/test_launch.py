"""Which groups are meant, and how a launch over many of them is told."""

from __future__ import annotations

import pytest

from edgefleet.errors import AmbiguousReferenceError, InvalidInputError, NotFoundError
from edgefleet.interfaces.values import Group
from edgefleet.rollout.launch import GroupLaunch, GroupPlan, Launch, LaunchPlan, chosen

GROUPS = tuple(
    Group(name=name, deployer=deployer)
    for deployer, name in (("aws", "line-1"), ("aws", "line-2"), ("aws", "yard"), ("pi", "yard"))
)


@pytest.mark.parametrize(
    "wanted,meant",
    [
        (("line-1",), ["aws/line-1"]),
        (("line-*",), ["aws/line-1", "aws/line-2"]),
        (("line-[2-9]", "line-?", "aws/line-2"), ["aws/line-1", "aws/line-2"]),
        (("pi/*",), ["pi/yard"]),
        (("*",), ["aws/line-1", "aws/line-2", "aws/yard", "pi/yard"]),
        (("pi/yard", "aws/yard"), ["aws/yard", "pi/yard"]),
    ],
)
def test_names_and_patterns_mean_groups_each_once_in_order(
    wanted: tuple[str, ...], meant: list[str]
) -> None:
    assert [group.reference for group in chosen(GROUPS, wanted)] == meant


@pytest.mark.parametrize(
    "wanted,error",
    [
        ((), InvalidInputError),
        (("hall",), NotFoundError),
        (("line-1", "hall-*"), NotFoundError),
        (("LINE-*",), NotFoundError),
        (("yard",), AmbiguousReferenceError),
    ],
)
def test_what_means_no_group_or_two_is_refused(
    wanted: tuple[str, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        chosen(GROUPS, wanted)


def test_what_is_no_text_is_refused_with_what_to_give() -> None:
    with pytest.raises(InvalidInputError, match="5 names no group") as caught:
        chosen(GROUPS, ("line-1", 5))
    assert "GROUP or DEPLOYER/GROUP" in str(caught.value)


def test_a_launch_tells_failures_first_and_cuts_what_is_long() -> None:
    done = [GroupLaunch(group=f"aws/g{n:03}", number=n, changed=n % 2 == 0) for n in range(50)]
    launch = Launch(groups=(*done, GroupLaunch(group="aws/z", error="throttled")))
    lines = str(launch).splitlines()
    assert lines[0] == "given to 25 groups, 25 had it already, 1 failed"
    assert "throttled" in lines[3]
    assert lines[-1] == "… and 31 more"


def test_a_plan_counts_devices_only_where_all_groups_tell() -> None:
    def plan(count: int | None) -> GroupPlan:
        return GroupPlan(
            group="aws/g", before=None, after="sha256:" + "0" * 64, changes=(), devices=count
        )

    assert LaunchPlan(groups=(plan(2), plan(3))).headline.endswith("; 5 devices")
    assert "devices" not in LaunchPlan(groups=(plan(2), plan(None))).headline
