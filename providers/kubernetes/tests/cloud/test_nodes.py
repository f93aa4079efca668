"""Nodes that lose power, network and room, and what a cluster makes of it."""

from __future__ import annotations

import threading

import pytest

from edgefleet.errors import NotFoundError, WaitTimeoutError
from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.cloud.api_kinds import Kind
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.cloud.node_disruption import check_eviction, room
from edgefleet_kubernetes.cloud.node_lifecycle import leaves_after_s, taints_of
from providers.kubernetes.tests.cloud.node_bench import (
    BROKEN,
    NAMESPACE,
    SLEEP,
    Bench,
    Object,
    condition,
    daemon_set,
    is_ready,
    node,
    pod,
    python,
    serving,
)

UNREACHABLE = "node.kubernetes.io/unreachable"


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """A cluster with one node, and a DaemonSet whose pod runs on it."""
    bench.cluster.add_node("n-1", labels={"group": "line"})
    bench.create(daemon_set())
    bench.cluster.settle("n-1")
    eventually(lambda: ready_on(bench, "n-1"))
    return bench


def ready_on(bench: Bench, name: str) -> bool:
    """Whether the DaemonSet's pod on a node is ready."""
    return any(is_ready(one) and one["spec"].get("nodeName") == name for one in bench.pods())


def taints(bench: Bench, name: str = "n-1") -> set[str]:
    """Keys of a node's taints."""
    return {one["key"] for one in bench.node(name)["spec"].get("taints") or ()}


def is_unknown(bench: Bench) -> bool:
    """Whether the node hasn't been heard of for too long."""
    return condition(bench.node("n-1"), "Ready").get("status") == "Unknown"


# ---------------------------------------------------------------------------- power and network


def test_nodes_join_while_the_cluster_looks_at_those_there_are(bench: Bench) -> None:
    joined: list[str] = []

    def join(kind: Kind, before: Object | None, after: Object | None) -> None:
        del before, after
        if kind.kind == "Node" and threading.current_thread().name == "mock-cluster":
            joined.append(f"late-{len(joined)}")
            bench.cluster.add_node(joined[-1], on=False)

    unready = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    as_node = Write(subresource="status")
    bench.store.on_write.append(join)
    bench.store.patch("Node", "n-1", unready, how=as_node)
    eventually(lambda: joined and is_ready(bench.node("n-1")))
    bench.store.on_write.remove(join)
    bench.store.patch("Node", "n-1", unready, how=as_node)
    eventually(lambda: is_ready(bench.node("n-1")), what="a node that says again how it is")


def test_a_node_says_what_it_has_and_how_it_is(bench: Bench) -> None:
    bench.cluster.add_node("gpu", resources={"nvidia.com/gpu": "1"})
    found = bench.node("gpu")
    assert found["status"]["allocatable"]["nvidia.com/gpu"] == "1"
    assert is_ready(found)
    assert found["metadata"]["labels"]["kubernetes.io/hostname"] == "gpu"


def test_a_node_without_power_is_not_ready_and_its_pods_neither(bench: Bench) -> None:
    bench.cluster.power_off("n-1")
    eventually(lambda: is_unknown(bench))
    eventually(lambda: UNREACHABLE in taints(bench))
    assert not ready_on(bench, "n-1")
    assert bench.cluster.pids("n-1") == {}


def test_a_node_with_power_again_runs_the_same_pods(bench: Bench) -> None:
    before = bench.pods()[0]["metadata"]["uid"]
    bench.cluster.power_off("n-1")
    eventually(lambda: is_unknown(bench))
    bench.cluster.power_on("n-1")
    eventually(lambda: ready_on(bench, "n-1"))
    found = bench.pods()[0]
    assert found["metadata"]["uid"] == before
    assert found["status"]["containerStatuses"][0]["restartCount"] == 1
    eventually(lambda: not taints(bench))


def test_a_node_that_is_cut_off_goes_on(bench: Bench) -> None:
    before = bench.cluster.pid("n-1", "app")
    bench.cluster.cut_network("n-1")
    eventually(lambda: is_unknown(bench))
    assert bench.cluster.pid("n-1", "app") == before
    bench.cluster.restore_network("n-1")
    eventually(lambda: ready_on(bench, "n-1"))
    assert bench.cluster.pid("n-1", "app") == before


def test_a_node_that_gets_its_power_back_while_cut_off_starts_nothing(bench: Bench) -> None:
    bench.cluster.cut_network("n-1")
    bench.cluster.power_off("n-1")
    bench.cluster.power_on("n-1")
    eventually(lambda: is_unknown(bench))
    with pytest.raises(WaitTimeoutError):
        bench.cluster.settle("n-1", timeout_s=1.0)
    assert bench.cluster.pids("n-1") == {}
    bench.cluster.restore_network("n-1")
    eventually(lambda: ready_on(bench, "n-1"))


def test_what_happens_on_a_node_that_is_cut_off_is_told_later(bench: Bench) -> None:
    bench.cluster.cut_network("n-1")
    name = bench.pods()[0]["metadata"]["name"]
    bench.store.delete("Pod", name, NAMESPACE)
    assert bench.cluster.pid("n-1", "app") is not None
    assert bench.pod(name) is not None
    bench.cluster.restore_network("n-1")
    eventually(lambda: bench.pod(name) is None)


def test_logs_of_a_node_that_does_not_answer_cannot_be_read(bench: Bench) -> None:
    bench.cluster.cut_network("n-1")
    with pytest.raises(Refused, match="no route to host"):
        bench.cluster.log(NAMESPACE, bench.pods()[0]["metadata"]["name"])


def test_pods_that_nothing_binds_to_a_node_leave_it_when_it_is_silent(bench: Bench) -> None:
    bench.create(pod("one", nodeName="n-1"))
    eventually(bench.ready)
    bench.cluster.cut_network("n-1")
    eventually(lambda: (bench.pod() or {})["metadata"].get("deletionTimestamp"))
    assert "deletionTimestamp" not in bench.pods()[0]["metadata"]
    bench.cluster.restore_network("n-1")
    eventually(lambda: bench.pod() is None)


def test_a_node_that_is_taken_away_takes_its_pods_along(bench: Bench) -> None:
    bench.cluster.remove_node("n-1")
    eventually(lambda: bench.pods() == [])
    with pytest.raises(NotFoundError):
        bench.cluster.kubelet("n-1")


def test_nodes_go_on_with_their_disks_when_a_cluster_starts_again(bench: Bench) -> None:
    bench.cluster.make_folder("n-1", "/var/lib/store").joinpath("kept").touch()
    bench.cluster.add_node("n-2", on=False)
    bench.cluster.stop()
    bench.cluster.start()
    eventually(lambda: ready_on(bench, "n-1"))
    assert bench.cluster.kubelet("n-1").disk.place("/var/lib/store/kept").exists()
    assert not bench.cluster.kubelet("n-2").on


# ----------------------------------------------------------------------------------------- disk


def test_a_full_disk_evicts_pods_and_admits_none(bench: Bench) -> None:
    bench.create(pod("one", nodeName="n-1"))
    eventually(bench.ready)
    bench.cluster.fill_disk("n-1")
    eventually(lambda: bench.phase() == "Failed")
    assert (bench.pod() or {})["status"]["reason"] == "Evicted"
    assert condition(bench.pod() or {}, "DisruptionTarget")["reason"] == "TerminationByKubelet"
    eventually(lambda: "node.kubernetes.io/disk-pressure" in taints(bench))
    assert bench.cluster.pids("n-1") == {}
    eventually(lambda: "FailedDaemonPod" in bench.events("agent"))


def test_room_on_the_disk_brings_the_pods_back(bench: Bench) -> None:
    bench.cluster.fill_disk("n-1")
    eventually(lambda: not ready_on(bench, "n-1"))
    bench.cluster.free_disk("n-1")
    eventually(lambda: ready_on(bench, "n-1"))


# --------------------------------------------------------------------------- taints and budgets


def test_conditions_make_taints() -> None:
    silent = node()
    silent["status"]["conditions"] = [
        {"type": "Ready", "status": "Unknown"},
        {"type": "DiskPressure", "status": "True"},
    ]
    assert {(one["key"].rpartition("/")[2], one["effect"]) for one in taints_of(silent)} == {
        ("unreachable", "NoSchedule"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
    }


@pytest.mark.parametrize(
    "toleration, expected",
    [
        (None, 300.0),
        ({"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute"}, None),
        ({"key": UNREACHABLE, "operator": "Exists", "tolerationSeconds": 7}, 7.0),
    ],
)
def test_a_pod_leaves_a_silent_node_when_its_toleration_ends(
    toleration: Object | None, expected: float | None
) -> None:
    silent = node(taints=({"key": UNREACHABLE, "effect": "NoExecute"},))
    found = pod(tolerations=[] if toleration is None else [toleration])
    assert leaves_after_s(found, silent, 300.0) == expected


def budget(**spec: object) -> Object:
    """A budget for an app's pods."""
    selector = {"matchLabels": {"app": "agent"}}
    meta = {"name": "agent", "namespace": NAMESPACE}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta,
        "spec": {"selector": selector, **spec},
    }


def test_a_budget_with_a_number_keeps_so_many(bench: Bench) -> None:
    bench.cluster.add_node("n-2", labels={"group": "line"})
    eventually(lambda: ready_on(bench, "n-2"))
    bench.create(budget(minAvailable=1))
    eventually(lambda: bench.status("PodDisruptionBudget", "agent").get("disruptionsAllowed") == 1)
    pods = bench.pods()
    check_eviction(pods[0], [budget(minAvailable=1)], pods)
    with pytest.raises(Refused, match="would violate the pod's disruption budget"):
        check_eviction(pods[0], [budget(minAvailable=2)], pods)


def test_a_budget_that_needs_to_know_how_many_are_wanted_is_of_no_use(bench: Bench) -> None:
    bench.create(budget(maxUnavailable=1))
    eventually(lambda: "CalculateExpectedPodCountFailed" in bench.events("agent"))
    found = bench.find("PodDisruptionBudget", "agent")
    assert found["status"]["disruptionsAllowed"] == 0
    assert condition(found, "DisruptionAllowed")["reason"] == "SyncFailed"
    assert room(found, bench.pods()).problem == (
        "daemonsets.apps does not implement the scale subresource"
    )


def test_pods_that_are_not_ready_may_be_evicted_where_a_budget_says_so(bench: Bench) -> None:
    found = bench.pods()[0]
    for one in found["status"]["conditions"]:
        one["status"] = "False"
    free = budget(minAvailable=1, unhealthyPodEvictionPolicy="AlwaysAllow")
    check_eviction(found, [free], [found])
    with pytest.raises(Refused, match="disruption budget"):
        check_eviction(found, [budget(minAvailable=1)], [found])


# ----------------------------------------------------------------------------- rolling updates


def change_image(bench: Bench, image: str) -> None:
    """Have the DaemonSet run another image."""
    found = bench.find("DaemonSet", "agent")
    found["spec"]["template"]["spec"]["containers"][0]["image"] = image
    bench.store.update(found)


def revisions(bench: Bench) -> list[int]:
    """Numbers of the DaemonSet's revisions."""
    return sorted(one["revision"] for one in bench.store.list("ControllerRevision", NAMESPACE))


def test_an_update_stops_at_an_image_that_is_not_there_and_is_undone(bench: Bench) -> None:
    for name in ("n-2", "n-3"):
        bench.cluster.add_node(name, labels={"group": "line"})
    eventually(lambda: bench.status("DaemonSet", "agent").get("numberAvailable") == 3)
    before = bench.find("DaemonSet", "agent")["spec"]["template"]
    change_image(bench, BROKEN)
    eventually(lambda: bench.status("DaemonSet", "agent").get("updatedNumberScheduled") == 1)
    eventually(lambda: any(bench.waiting(one["metadata"]["name"]) for one in bench.pods()))
    eventually(lambda: bench.status("DaemonSet", "agent").get("numberUnavailable") == 1)
    assert sum(is_ready(one) for one in bench.pods()) == 2
    assert revisions(bench) == [1, 2]
    found = bench.find("DaemonSet", "agent")
    found["spec"]["template"] = before
    bench.store.update(found)
    eventually(lambda: bench.status("DaemonSet", "agent").get("numberAvailable") == 3)
    assert revisions(bench) == [2, 3]


def test_a_node_that_joins_gets_its_pod_and_one_that_leaves_loses_it(bench: Bench) -> None:
    bench.cluster.add_node("n-2")
    found = bench.node("n-2")
    found["metadata"]["labels"]["group"] = "line"
    bench.store.update(found)
    eventually(lambda: ready_on(bench, "n-2"))
    found = bench.node("n-2")
    found["metadata"]["labels"]["group"] = "other"
    bench.store.update(found)
    eventually(lambda: len(bench.pods()) == 1)


def test_a_pod_counts_as_available_when_it_has_been_ready_for_long_enough(bench: Bench) -> None:
    bench.create(daemon_set("slow", python(SLEEP), minReadySeconds=3600))
    eventually(lambda: bench.status("DaemonSet", "slow").get("numberReady") == 1)
    assert bench.status("DaemonSet", "slow").get("numberAvailable", 0) == 0
    bench.store.patch("DaemonSet", "slow", {"spec": {"minReadySeconds": 1}}, NAMESPACE)
    eventually(lambda: bench.status("DaemonSet", "slow").get("numberAvailable") == 1)


def test_a_daemon_set_that_is_deleted_takes_its_pods_and_revisions_along(bench: Bench) -> None:
    bench.store.delete("DaemonSet", "agent", NAMESPACE)
    eventually(lambda: bench.pods() == [])
    assert revisions(bench) == []


def test_a_pod_that_no_node_can_take_says_why(bench: Bench) -> None:
    gpu = {"limits": {"nvidia.com/gpu": "1"}}
    bench.create(pod("one", serving(resources=gpu)))
    eventually(lambda: "FailedScheduling" in bench.events("one"))
    assert bench.events("one")["FailedScheduling"].startswith(
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    )
    assert condition(bench.pod() or {}, "PodScheduled")["reason"] == "Unschedulable"
    bench.cluster.add_node("gpu", resources={"nvidia.com/gpu": "1"})
    eventually(bench.ready)
