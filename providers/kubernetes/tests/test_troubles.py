"""What stalls a device is told in Kubernetes' own words, with what to do about it.

Messages and shapes are those of kubelet, scheduler and controllers.
"""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_kubernetes.names import FLEET, GROUP
from edgefleet_kubernetes.reading import Member, evidence_of, is_running, newest_pod, read_member
from edgefleet_kubernetes.troubles import Trouble, trouble_of

Object = dict[str, Any]
DAEMON_SET: Object = {"metadata": {"name": "edgefleet-runtime-line-3"}}


def node(*, ready: str = "True", taints: tuple[Object, ...] = ()) -> Member:
    condition = {
        "type": "Ready",
        "status": ready,
        "lastTransitionTime": "2026-11-21T10:00:00Z",
        "reason": "KubeletReady" if ready == "True" else "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
    }
    found = {
        "metadata": {"name": "cam-1", "labels": {FLEET: "plant", GROUP: "line-3"}},
        "spec": {"taints": list(taints)},
        "status": {"conditions": [condition], "nodeInfo": {"kubeletVersion": "v1.33.1+k3s1"}},
    }
    member = read_member(found, "plant", "site-1")
    assert member is not None
    return member


def pod(state: Object | None = None, *, name: str = "r-x", **status: Any) -> Object:
    container = {"name": "runtime", "image": "registry/runtime:9", "restartCount": 4}
    statuses = [] if state is None else [{**container, "state": state, **status.pop("more", {})}]
    return {
        "metadata": {"name": name, "creationTimestamp": "2026-11-21T09:00:00Z"},
        "spec": {"nodeName": "cam-1"},
        "status": {"phase": "Pending", "containerStatuses": statuses, **status},
    }


def event(reason: str, message: str, at: str = "2026-11-21T10:00:00Z") -> Object:
    return {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": at}


def told(
    found: Object | None,
    *events: Object,
    member: Member | None = None,
    daemon_set: Object | None = DAEMON_SET,
) -> Trouble:
    trouble = trouble_of(member or node(), found, daemon_set, events)
    assert trouble is not None
    return trouble


def test_a_runtime_that_runs_has_no_trouble() -> None:
    running = pod({"running": {"startedAt": "2026-11-21T09:00:00Z"}}, phase="Running")
    assert is_running(running)
    assert trouble_of(node(), running, DAEMON_SET, ()) is None


def test_an_image_that_cannot_be_pulled_is_named_with_what_the_registry_said() -> None:
    back_off = pod({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}})
    first = 'Failed to pull image "registry/runtime:9": manifest unknown'
    trouble = told(
        back_off,
        event("Failed", first, "2026-11-21T09:59:00Z"),
        event("Failed", "Error: ImagePullBackOff"),
        event("BackOff", 'Back-off pulling image "registry/runtime:9"'),
    )
    assert "registry/runtime:9" in trouble.what
    assert "manifest unknown" in trouble.what
    assert "pull_secret" in trouble.cure


def test_a_crash_loop_is_told_with_what_the_runtime_said_last() -> None:
    ended = {
        "reason": "Error",
        "exitCode": 1,
        "message": "starting\nerror: can't write /var/lib/edgefleet: Permission denied\n",
    }
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
    trouble = told(pod(waiting, more={"lastState": {"terminated": ended}}))
    assert "4 restarts" in trouble.what
    assert "exit code 1" in trouble.what
    assert "Permission denied" in trouble.what


def test_a_missing_secret_is_named() -> None:
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" absent'}}
    assert 'secret "s" absent' in told(pod(waiting)).what


def test_a_missing_folder_of_the_store_is_told_with_the_command_that_makes_it() -> None:
    creating = pod({"waiting": {"reason": "ContainerCreating"}})
    message = "hostPath type check failed: /var/lib/edgefleet is not a directory"
    trouble = told(creating, event("FailedMount", message))
    assert message in trouble.what
    assert "install -d -o 10001" in trouble.cure


def test_a_container_that_is_being_made_is_no_trouble() -> None:
    creating = pod({"waiting": {"reason": "ContainerCreating"}})
    assert trouble_of(node(), creating, DAEMON_SET, ()) is None


def test_a_node_without_the_gpu_asked_for_is_told() -> None:
    conditions = [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/3 nodes are available: 1 Insufficient nvidia.com/gpu.",
        }
    ]
    assert "nvidia.com/gpu" in told(pod(conditions=conditions)).what


def test_an_eviction_is_told_with_what_the_node_lacked() -> None:
    evicted = pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
    trouble = told(evicted)
    assert "Evicted" in trouble.what
    assert "memory" in trouble.what


def test_a_node_that_is_not_ready_is_told_before_its_pod() -> None:
    running = pod({"running": {}}, phase="Running")
    trouble = told(running, member=node(ready="Unknown"))
    assert "NotReady since 2026-11-21T10:00:00Z" in trouble.what
    assert "Kubelet stopped posting" in trouble.what


@pytest.mark.parametrize(
    "message,cure",
    [
        ('pods "r-" is forbidden: exceeded quota: tight, requested: pods=1', "ResourceQuota"),
        ('pods "r-" is forbidden: violates PodSecurity "restricted:latest"', "pod security"),
        ("admission webhook denied the request", "mend what the message names"),
    ],
)
def test_a_pod_that_is_refused_is_told_with_who_refused(message: str, cure: str) -> None:
    trouble = told(None, event("FailedCreate", f"Error creating: {message}"))
    assert message in trouble.what
    assert cure in trouble.cure


def test_a_taint_that_nothing_tolerates_is_named() -> None:
    taint = {"key": "edge", "value": "yes", "effect": "NoSchedule"}
    trouble = told(None, member=node(taints=(taint,)))
    assert "edge=yes:NoSchedule" in trouble.what
    assert "tolerations" in trouble.cure


@pytest.mark.parametrize(
    "toleration",
    [
        {"key": "edge", "operator": "Exists"},
        {"operator": "Exists"},
        {"key": "edge", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},
    ],
)
def test_a_taint_that_is_tolerated_is_not_blamed(toleration: Object) -> None:
    taint = {"key": "edge", "value": "yes", "effect": "NoSchedule"}
    template = {"spec": {"tolerations": [toleration]}}
    daemon_set = {**DAEMON_SET, "spec": {"template": template}}
    assert "taint" not in told(None, member=node(taints=(taint,)), daemon_set=daemon_set).what


def test_a_group_without_its_daemon_set_is_told_with_the_command_that_makes_it() -> None:
    assert told(None, daemon_set=None).cure == "edgefleet install --group line-3"


def test_evidence_has_the_last_warning_of_the_pod() -> None:
    running = pod({"running": {}}, phase="Running")
    found = evidence_of(
        node(),
        running,
        [event("Unhealthy", "Liveness probe failed"), event("Old", "x", "2026-11-20T10:00:00Z")],
        clusters=2,
    )
    assert found["context"] == "site-1"
    assert found["node"] == "Ready, kubelet v1.33.1+k3s1"
    assert found["pod"] == "r-x Running, restarted 4 times"
    assert found["last warning"] == "Unhealthy: Liveness probe failed"


def test_of_two_pods_the_one_that_stays_counts() -> None:
    old = pod({"running": {}}, name="old")
    old["metadata"]["deletionTimestamp"] = "2026-11-21T10:00:00Z"
    new = pod({"waiting": {"reason": "ErrImagePull"}}, name="new")
    assert newest_pod([old, new]) is new


def test_labels_that_kubernetes_takes_and_others_are_one() -> None:
    found = {
        "metadata": {
            "name": "cam-1",
            "labels": {FLEET: "plant", GROUP: "line-3", "label.edgefleet.dev/target": "x86-cpu"},
            "annotations": {"edgefleet.dev/labels": '{"site": "A 1"}'},
        }
    }
    member = read_member(found, "plant", "")
    assert member is not None
    assert member.labels == {"target": "x86-cpu", "site": "A 1"}


def test_a_spoiled_annotation_hides_no_device() -> None:
    labels = {FLEET: "plant", GROUP: "line-3"}
    annotations = {"edgefleet.dev/labels": "[1"}
    found = {"metadata": {"name": "cam-1", "labels": labels, "annotations": annotations}}
    member = read_member(found, "plant", "")
    assert member is not None
    assert member.labels == {}
