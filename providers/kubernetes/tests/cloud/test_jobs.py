"""What becomes of a Job: how many pods run, how ends count, when it is over."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from edgefleet_kubernetes.cloud import jobs
from edgefleet_kubernetes.cloud.jobs import FINALIZER, INDEX, Plan
from providers.kubernetes.tests.cloud.node_bench import Object, job

NOW = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
BEGAN = "2026-01-01T11:59:00Z"


def wanted(status: Object | None = None, **spec: Any) -> Object:
    """A Job as the API server keeps it."""
    found = job(**{"parallelism": 1, "completions": 1, "backoffLimit": 6, **spec})
    found["metadata"]["uid"] = "u-1"
    found["status"] = {"startTime": BEGAN, **(status or {})}
    return found


def pod_that(phase: str, name: str = "p", *, index: int | None = None, **more: Any) -> Object:
    """A pod of the Job."""
    notes = {} if index is None else {INDEX: str(index)}
    going = {"deletionTimestamp": BEGAN} if more.pop("going", False) else {}
    code = more.pop("code", 1)
    state = {"terminated": {"exitCode": code}} if phase == "Failed" else {"running": {}}
    return {
        "metadata": {
            "name": name,
            "namespace": "plant",
            "annotations": notes,
            "finalizers": [] if more.pop("counted", False) else [FINALIZER],
            **going,
        },
        "spec": {"nodeName": "n-1"},
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "app", "state": state, **more.pop("container", {})}],
            **more,
        },
    }


def decide(found: Object, *pods: Object) -> Plan:
    """What is to be done now."""
    return jobs.decide(found, pods, NOW)


def test_a_new_job_gets_as_many_pods_as_may_run_at_once() -> None:
    assert decide(wanted(completions=5, parallelism=2)).create == (None, None)


def test_no_more_pods_run_than_completions_are_left() -> None:
    found = wanted(completions=5, parallelism=3, status={"succeeded": 4})
    assert decide(found).create == (None,)


def test_a_success_counts_once() -> None:
    first = decide(wanted(completions=2), pod_that("Succeeded"))
    assert (first.status["succeeded"], first.counted) == (1, ("p",))
    again = wanted(completions=2, status={"succeeded": 1})
    assert decide(again, pod_that("Succeeded", counted=True)).status["succeeded"] == 1


def test_a_job_is_complete_with_its_last_success() -> None:
    verdict = decide(wanted(), pod_that("Succeeded")).verdict
    assert verdict is not None
    assert verdict.done


def test_a_failure_is_tried_again_up_to_the_limit() -> None:
    found = wanted(backoffLimit=1)
    assert decide(found, pod_that("Failed")).verdict is None
    twice = wanted(backoffLimit=1, status={"failed": 1})
    verdict = decide(twice, pod_that("Failed")).verdict
    assert verdict is not None
    assert (verdict.done, verdict.reason, verdict.message) == (
        False,
        "BackoffLimitExceeded",
        "Job has reached the specified backoff limit",
    )


def test_restarts_within_a_pod_count_toward_the_limit() -> None:
    found = wanted(backoffLimit=2, pod={"restartPolicy": "OnFailure"})
    restarted = pod_that("Running", container={"restartCount": 2})
    verdict = decide(found, restarted).verdict
    assert verdict is not None
    assert verdict.reason == "BackoffLimitExceeded"


def test_a_job_ends_at_its_deadline_and_takes_its_pods_along() -> None:
    plan = decide(wanted(activeDeadlineSeconds=60), pod_that("Running"))
    assert plan.verdict is not None
    assert plan.verdict.reason == "DeadlineExceeded"
    assert plan.delete == ("p",)


def test_a_job_that_waits_has_no_deadline() -> None:
    assert decide(wanted(activeDeadlineSeconds=60, suspend=True)).verdict is None


def test_a_suspended_job_has_no_pods() -> None:
    plan = decide(wanted(suspend=True), pod_that("Running"))
    assert (plan.create, plan.delete) == ((), ("p",))


def test_what_ends_because_of_a_pause_is_no_failure() -> None:
    plan = decide(wanted(suspend=True), pod_that("Failed", going=True))
    assert (plan.status["failed"], plan.counted) == (0, ("p",))


def test_each_index_runs_until_it_has_succeeded() -> None:
    found = wanted(completionMode="Indexed", completions=4, parallelism=4)
    pods = (
        pod_that("Succeeded", "a", index=0),
        pod_that("Failed", "b", index=1),
        pod_that("Running", "c", index=2),
    )
    plan = decide(found, *pods)
    assert plan.create == (1, 3)
    assert plan.status["completedIndexes"] == "0"


def test_a_pod_of_an_index_is_told_which() -> None:
    made = jobs.pod_for(wanted(completionMode="Indexed"), 2)
    assert made["metadata"]["annotations"][INDEX] == "2"
    assert made["spec"]["hostname"] == "train-2"
    names = [one["name"] for one in made["spec"]["containers"][0]["env"]]
    assert "JOB_COMPLETION_INDEX" in names


@pytest.mark.parametrize(
    "action, failed, reason",
    [("FailJob", 1, "PodFailurePolicy"), ("Ignore", 0, None), ("Count", 1, None)],
)
def test_an_exit_code_may_end_a_job_or_count_for_nothing(
    action: str, failed: int, reason: str | None
) -> None:
    codes = {"operator": "In", "values": [42]}
    found = wanted(podFailurePolicy={"rules": [{"action": action, "onExitCodes": codes}]})
    plan = decide(found, pod_that("Failed", code=42))
    assert plan.status["failed"] == failed
    assert (plan.verdict.reason if plan.verdict else None) == reason


def test_a_disruption_may_count_for_nothing() -> None:
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}
    evicted = pod_that("Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}])
    assert decide(wanted(podFailurePolicy={"rules": [rule]}), evicted).status["failed"] == 0


@pytest.mark.parametrize("text", ["", "0", "1,3-5", "0-9"])
def test_indexes_are_written_in_ranges(text: str) -> None:
    assert jobs.ranges(jobs.numbers(text)) == text


def test_pauses_double_up_to_the_longest() -> None:
    assert [jobs.pause_s(number, 10) for number in (0, 1, 2, 3, 20)] == [0, 10, 20, 40, 600]
