"""What a run's objects say, in our words; and what no node could give."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet.errors import UnsupportedError
from edgefleet.interfaces.training import Resources, RunState
from edgefleet_kubernetes.run_states import CANCELLED, status_of
from edgefleet_kubernetes.training_nodes import check_nodes

Object = dict[str, Any]
BEGAN, ENDED = "2026-01-01T10:00:00Z", "2026-01-01T10:05:00Z"


def run(*conditions: tuple[str, str], **annotations: str) -> Object:
    found = [
        {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": ENDED}
        for kind, reason in conditions
    ]
    return {
        "kind": "Job",
        "metadata": {
            "name": "plant-run-1",
            "namespace": "edgefleet",
            "creationTimestamp": BEGAN,
            "annotations": annotations,
        },
        "spec": {"activeDeadlineSeconds": 60},
        "status": {"startTime": BEGAN, "conditions": found},
    }


def pod(
    phase: str = "Pending",
    *,
    state: Object | None = None,
    init: Object | None = None,
    unplaced: str = "",
) -> Object:
    """A pod with a sidecar, whose status comes first, as kubelets sort them by name."""
    conditions = [{"type": "PodScheduled", "status": "False", "message": unplaced}]
    return {
        "metadata": {"name": "plant-run-1-x", "namespace": "edgefleet"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "training"}, {"name": "proxy"}]},
        "status": {
            "phase": phase,
            "startTime": BEGAN,
            "conditions": conditions if unplaced else [],
            "initContainerStatuses": [{"name": "fetch", "image": "git:1", "state": init or {}}],
            "containerStatuses": [
                {"name": "proxy", "image": "envoy:1", "state": {"running": {}}},
                {"name": "training", "image": "python:3.13", "state": state or {}},
            ],
        },
    }


def ended(code: int, reason: str = "Error") -> Object:
    return pod("Failed", state={"terminated": {"exitCode": code, "reason": reason}})


def test_a_run_is_pending_until_a_pod_runs() -> None:
    assert status_of(run(), [pod()]).state is RunState.PENDING
    running = status_of(run(), [pod("Running", state={"running": {}})])
    assert running.state is RunState.RUNNING
    assert running.evidence["nodes"] == "node-1"


def test_a_complete_job_has_succeeded() -> None:
    found = status_of(run(("Complete", "CompletionsReached")))
    assert found.state is RunState.SUCCEEDED
    assert found.ended is not None


def test_the_status_of_the_script_is_the_reason_of_a_failure() -> None:
    found = status_of(run(("Failed", "BackoffLimitExceeded")), [ended(3)])
    assert (found.state, found.reason) == (RunState.FAILED, "the script ended with status 3")


def test_an_init_container_that_failed_is_the_reason() -> None:
    init = {"terminated": {"exitCode": 7, "reason": "Error"}}
    waits = pod("Failed", state={"waiting": {"reason": "PodInitializing"}}, init=init)
    found = status_of(run(("Failed", "BackoffLimitExceeded")), [waits])
    assert found.reason == (
        "init container fetch ended with status 7 before the script began: "
        "kubectl logs plant-run-1-x -c fetch -n edgefleet"
    )


def test_a_sidecar_that_was_ended_after_the_script_is_not_the_reason() -> None:
    init = {"terminated": {"exitCode": 143, "reason": "Error"}}
    both = pod("Failed", state={"terminated": {"exitCode": 3, "reason": "Error"}}, init=init)
    found = status_of(run(("Failed", "BackoffLimitExceeded")), [both])
    assert found.reason == "the script ended with status 3"


def test_an_initializer_of_the_training_runtime_is_not_taken_for_the_script() -> None:
    failed = ended(3)
    replicated = "jobset.sigs.k8s.io/replicatedjob-name"
    failed["metadata"]["labels"] = {replicated: "dataset-initializer"}
    found = status_of(run(("Failed", "BackoffLimitExceeded")), [failed])
    assert found.reason == "the training runtime's dataset-initializer ended with status 3"


def test_a_lack_of_memory_names_its_cure() -> None:
    found = status_of(run(("Failed", "BackoffLimitExceeded")), [ended(137, "OOMKilled")])
    assert found.reason is not None
    assert "memory_gib" in found.reason


def test_a_run_over_its_time_says_so() -> None:
    found = status_of(run(("Failed", "DeadlineExceeded")))
    assert found.reason == "ended by Kubernetes: over its time, 60 s"


def test_a_cancelled_run_is_no_failure() -> None:
    found = status_of(run(("Suspended", "JobSuspended"), **{CANCELLED: ENDED}))
    assert found.state is RunState.CANCELLED


def test_a_run_that_ended_before_it_was_cancelled_has_ended() -> None:
    found = status_of(run(("Complete", "CompletionsReached"), **{CANCELLED: ENDED}))
    assert found.state is RunState.SUCCEEDED


def test_what_no_node_has_stands_in_front_of_the_scheduler_s_words() -> None:
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    found = status_of(run(), [pod(unplaced=words)])
    assert found.reason == f"no node has nvidia.com/gpu to spare ({words})"


def test_an_image_that_cannot_be_pulled_is_named() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
    found = status_of(run(), [pod(state=waiting)])
    assert found.reason == "ImagePullBackOff: not found (python:3.13)"


def test_an_image_of_an_init_container_that_cannot_be_pulled_is_named() -> None:
    init = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
    found = status_of(run(), [pod(state={"waiting": {"reason": "PodInitializing"}}, init=init)])
    assert found.reason == "ErrImagePull: not found (git:1)"


def test_a_run_without_a_pod_says_what_its_last_warning_says() -> None:
    quota = {"type": "Warning", "reason": "FailedCreate", "message": "exceeded quota: small"}
    assert status_of(run(), [], [quota]).reason == "FailedCreate: exceeded quota: small"


def told(
    second: int, reason: str, message: str = "no claim", *, kind: str = "Warning", of: str = "Pod"
) -> Object:
    """An event."""
    return {
        "type": kind,
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": of},
        "lastTimestamp": f"2026-01-01T10:00:{second:02}Z",
    }


def test_a_warning_that_the_pod_went_on_from_is_no_reason_for_waiting() -> None:
    events = [told(1, "FailedScheduling"), told(2, "Scheduled", kind="Normal")]
    assert status_of(run(), [pod()], events).reason is None
    events.append(told(2, "FailedMount"))
    assert status_of(run(), [pod()], events).reason == "FailedMount: no claim"


def test_a_run_over_its_time_says_what_its_pod_waited_for() -> None:
    over = run(("Failed", "DeadlineExceeded"))
    plain = "ended by Kubernetes: over its time, 60 s"
    events = [told(1, "FailedMount"), told(9, "DeadlineExceeded", of="Job")]
    found = status_of(over, [], events)
    assert found.reason == f"{plain}; what was told of its pod last: FailedMount: no claim"
    events.append(told(2, "Started", kind="Normal"))
    assert status_of(over, [], events).reason == plain


def test_what_no_node_has_stands_in_front_in_an_event_too() -> None:
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    found = status_of(run(), [pod()], [told(1, "FailedScheduling", words)])
    assert found.reason == f"no node has nvidia.com/gpu to spare ({words})"


def test_what_warnings_say_is_told_once_each_and_the_newest_last() -> None:
    words, sentence = "Error: ErrImagePull", "no such image: python:4"
    events = [told(n, "Failed", text) for n, text in enumerate((words, sentence, words), start=1)]
    assert status_of(run(), [pod()], events).reason == f"Failed: {sentence}; Failed: {words}"
    many = [told(n, "FailedMount", f"try {n}") for n in range(9)]
    assert status_of(run(), [pod()], many).reason == (
        "FailedMount: try 6; FailedMount: try 7; FailedMount: try 8"
    )


def node(name: str = "a", **allocatable: str) -> Object:
    resources = {key.replace("_", "/"): value for key, value in allocatable.items()}
    labels = {"node.kubernetes.io/instance-type": name}
    return {"metadata": {"labels": labels}, "status": {"allocatable": resources}}


GPU = "gpu"


@pytest.mark.parametrize(
    "wants,named",
    [
        (Resources(gpus=3), "no node has 3 gpu"),
        (Resources(memory_gib=5), "5 GiB"),
        (Resources(instance="c"), "'c'"),
        (Resources(instance="b", gpus=1), "no node has 1 gpu"),
    ],
    ids=["gpus", "memory", "instance", "both"],
)
def test_what_no_node_has_is_refused(wants: Resources, named: str) -> None:
    nodes = [node("a", gpu="2", memory="4Gi"), node("b", memory="2Gi")]
    with pytest.raises(UnsupportedError, match=named):
        check_nodes(nodes, wants, GPU)


def test_what_one_node_has_is_given() -> None:
    nodes = [node("a", gpu="2", memory="4Gi"), node("b", memory="2Gi")]
    check_nodes(nodes, Resources(instance="a", gpus=2, memory_gib=4), GPU)
