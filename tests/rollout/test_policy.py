"""What a policy may say, and what a channel refuses of it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edgefleet.interfaces.policy import (
    Faster,
    PolicyLimits,
    RolloutPolicy,
    StopAfter,
    problems_of,
)

LIMITS = PolicyLimits(
    per_minute=(1, 1000),
    faster_by=(1.1, 5),
    counting=("notified",),
    stop_after=True,
    on_failure=("keep",),
    timeout_s=(60, 600),
    timeout_step_s=60,
)
WHOLE = RolloutPolicy(
    per_minute=50,
    faster=Faster(by=1.5, after=100),
    stop_after=StopAfter(failed_percent=5, devices=20),
    on_failure="keep",
    timeout_s=120,
)


def test_what_a_channel_can_honour_has_no_problems() -> None:
    assert problems_of(WHOLE, LIMITS) == ()
    assert problems_of(RolloutPolicy(), PolicyLimits()) == ()


def test_a_channel_that_honours_nothing_refuses_each_part() -> None:
    found = " ".join(problems_of(WHOLE, PolicyLimits()))
    for part in ("per_minute", "faster.by", "stop_after", "on_failure", "timeout_s"):
        assert part in found


@pytest.mark.parametrize(
    "policy,said",
    [
        (RolloutPolicy(per_minute=1001), "per_minute is 1 to 1000 here, not 1001"),
        (RolloutPolicy(per_minute=1, faster=Faster(by=6, after=1)), "faster.by is 1.1 to 5"),
        (RolloutPolicy(per_minute=1, faster=Faster(by=1.55, after=1)), "digits"),
        (
            RolloutPolicy(per_minute=1, faster=Faster(by=2, after=1, counting="succeeded")),
            "counting can't be 'succeeded'",
        ),
        (RolloutPolicy(on_failure="roll-back"), "on_failure can't be 'roll-back'"),
        (RolloutPolicy(timeout_s=30), "timeout_s is 60 to 600 here, not 30"),
        (RolloutPolicy(timeout_s=90), "timeout_s is a multiple of 60"),
    ],
)
def test_what_is_outside_a_channels_limits_is_told(policy: RolloutPolicy, said: str) -> None:
    assert said in " ".join(problems_of(policy, LIMITS))


def test_a_rate_that_grows_starts_from_a_rate() -> None:
    with pytest.raises(ValidationError, match="give per_minute"):
        RolloutPolicy(faster=Faster(by=2, after=10))


def test_a_policy_is_told_in_words() -> None:
    assert str(WHOLE) == (
        "50 devices a minute, 1.5 times as many after each 100 notified, "
        "stops when 5 % of at least 20 failed, "
        "a device that fails keeps what it was given, a device has 120 s"
    )
    assert str(RolloutPolicy()) == "as the channel does it"
