"""Rate, abort criteria and timeouts of the mock's deployments, over a clock of the test's own."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from edgefleet_aws.cloud.rollout import Crowd, Execution, Rollout

BEGAN = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def after(minutes: float) -> dt.datetime:
    return BEGAN + dt.timedelta(minutes=minutes)


def rollout(config: dict[str, Any], *, devices: int = 0, every_fails: int = 0) -> Rollout:
    return Rollout(config, BEGAN, Crowd(devices, every_fails))


def growing(**criteria: int) -> dict[str, Any]:
    rate = {"baseRatePerMinute": 50, "incrementFactor": 2.0, "rateIncreaseCriteria": criteria}
    return {"jobExecutionsRolloutConfig": {"exponentialRate": rate}}


def aborting(percent: float, least: int, kind: str = "ALL") -> dict[str, Any]:
    criterion = {
        "failureType": kind,
        "action": "CANCEL",
        "thresholdPercentage": percent,
        "minNumberOfExecutedThings": least,
    }
    return {"abortConfig": {"criteriaList": [criterion]}}


@pytest.mark.parametrize(
    "config,told",
    [({}, 2001), ({"jobExecutionsRolloutConfig": {"maximumPerMinute": 50}}, 101)],
    ids=["default", "constant"],
)
def test_devices_are_told_at_the_rate(config: dict[str, Any], told: int) -> None:
    one = rollout(config, devices=10_000)
    one.advance(after(2))
    assert one.counts() == {"SUCCEEDED": told, "QUEUED": 10_000 - told, "FAILED": 0}


@pytest.mark.parametrize("criterion", ["numberOfNotifiedThings", "numberOfSucceededThings"])
def test_an_exponential_rate_grows_each_time_its_criterion_is_met(criterion: str) -> None:
    one = rollout(growing(**{criterion: 100}), devices=10_000)
    one.advance(after(2))
    assert abs(one.counts()["SUCCEEDED"] - 100) <= 1
    one.advance(after(3))  # 100 a minute by now
    assert abs(one.counts()["SUCCEEDED"] - 200) <= 2
    one.advance(after(4))  # 200 a minute, 400 from the 300th on, 800, and 1,000 from the 500th
    assert abs(one.counts()["SUCCEEDED"] - 625) <= 15


def test_looking_often_tells_no_more_devices_than_looking_once() -> None:
    often, once = (rollout(growing(numberOfNotifiedThings=100), devices=9_999) for _ in range(2))
    for step in range(1, 301):
        often.advance(after(step / 60))
    once.advance(after(5))
    assert abs(often.counts()["SUCCEEDED"] - once.counts()["SUCCEEDED"]) <= 1


def test_a_rate_grows_to_a_thousand_a_minute_at_most() -> None:
    one = rollout(growing(numberOfNotifiedThings=1), devices=1_000_000)
    one.advance(after(1))
    early = one.counts()["SUCCEEDED"]
    one.advance(after(11))
    assert abs(one.counts()["SUCCEEDED"] - early - 10_000) <= 1


def test_from_the_criteria_on_no_further_device_is_told() -> None:
    one = rollout(aborting(10, 50), devices=1_000, every_fails=5)
    one.advance(after(1))
    assert one.stopped == "10 of 50 devices failed"
    assert one.counts() == {"FAILED": 10, "SUCCEEDED": 40, "CANCELED": 950}
    one.advance(after(2))
    assert one.counts()["CANCELED"] == 950


def test_failures_of_another_kind_stop_nothing() -> None:
    one = rollout(aborting(1, 1, "REJECTED"), devices=10, every_fails=1)
    one.advance(after(1))
    assert not one.stopped
    assert one.counts()["FAILED"] == 10


def test_a_device_that_is_queued_when_it_stops_never_hears_of_it() -> None:
    one = rollout({"jobExecutionsRolloutConfig": {"maximumPerMinute": 1}, **aborting(100, 1)})
    for thing in ("first", "second"):
        one.executions[thing] = Execution("QUEUED", BEGAN)
    one.advance(BEGAN)
    assert (one.hears("first"), one.hears("second")) == (True, False)
    one.report("first", "FAILED", after(0.5))
    one.advance(after(9))
    assert not one.hears("second")
    assert one.executions["second"].status == "CANCELED"


def test_a_device_that_begins_and_never_ends_is_timed_out_and_counts_as_failed() -> None:
    one = rollout({"timeoutConfig": {"inProgressTimeoutInMinutes": 5}, **aborting(100, 1)})
    one.executions["slow"] = Execution("QUEUED", BEGAN)
    one.report("slow", "IN_PROGRESS", after(1))
    one.advance(after(5.9))
    assert one.executions["slow"].status == "IN_PROGRESS"
    one.advance(after(6))
    assert one.executions["slow"].status == "TIMED_OUT"
    assert one.stopped == "1 of 1 devices failed"
