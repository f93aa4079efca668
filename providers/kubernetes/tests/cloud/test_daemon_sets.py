"""What becomes of a DaemonSet's pods: which nodes get one, and which old ones go."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from edgefleet_kubernetes.cloud import daemon_sets
from edgefleet_kubernetes.cloud.daemon_sets import HASH_LABEL
from providers.kubernetes.tests.cloud.node_bench import Object, daemon_set, node

LINE = {"group": "line"}
NEW, OLD = "new", "old"


def wanted(**spec: Any) -> Object:
    """A DaemonSet as the API server keeps it."""
    found = daemon_set(**spec)
    found["metadata"] |= {"uid": "u-1", "generation": 1}
    return found


def pod_on(name: str, digest: str, *, ready: bool = True, going: bool = False) -> Object:
    """A pod of the DaemonSet."""
    return {
        "metadata": {
            "name": f"agent-{name}",
            "labels": {HASH_LABEL: digest},
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
        },
        "spec": {"nodeName": name},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def replaced(limit: int | str, *pods: Object, nodes: int = 0) -> set[str]:
    """Names of the nodes whose old pods go."""
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": limit}}
    found = wanted(updateStrategy=strategy)
    names = {pod["spec"]["nodeName"] for pod in pods} | {f"more-{n}" for n in range(nodes)}
    usable = {
        pod["metadata"]["name"]: pod["status"]["conditions"][0]["status"] == "True" for pod in pods
    }
    going = daemon_sets.rolling_update(
        found,
        [node(name, labels=LINE) for name in sorted(names)],
        daemon_sets.by_node(pods),
        NEW,
        usable,
    )
    return {name.removeprefix("agent-") for name in going}


def test_no_more_nodes_are_without_a_pod_than_may_be() -> None:
    pods = [pod_on(name, OLD) for name in "abcd"]
    assert len(replaced(2, *pods)) == 2


def test_a_share_of_nodes_may_be_without_a_pod() -> None:
    pods = [pod_on(name, OLD) for name in "abcdefghij"]
    assert len(replaced("25%", *pods)) == 3


def test_new_pods_that_are_not_ready_stop_the_update() -> None:
    assert replaced(1, pod_on("a", NEW, ready=False), pod_on("b", OLD)) == set()


def test_new_pods_that_are_ready_let_it_go_on() -> None:
    assert replaced(1, pod_on("a", NEW), pod_on("b", OLD)) == {"b"}


def test_old_pods_that_are_not_ready_go_at_once() -> None:
    pods = (pod_on("a", NEW, ready=False), pod_on("b", OLD, ready=False), pod_on("c", OLD))
    assert replaced(1, *pods) == {"b"}


def test_pods_that_are_going_count_as_missing() -> None:
    assert replaced(1, pod_on("a", OLD, going=True), pod_on("b", OLD)) == set()


def test_nodes_without_a_pod_count_as_missing() -> None:
    assert replaced(1, pod_on("a", OLD), nodes=1) == set()


def test_pods_are_replaced_on_delete_only_where_that_is_the_strategy() -> None:
    found = wanted(updateStrategy={"type": "OnDelete"})
    pods = daemon_sets.by_node([pod_on("a", OLD)])
    nodes = [node("a", labels=LINE)]
    assert daemon_sets.rolling_update(found, nodes, pods, NEW, {"agent-a": True}) == ()


def test_a_node_that_fits_gets_one_pod() -> None:
    nodes = [node("a", labels=LINE), node("b", labels={"group": "other"})]
    assert daemon_sets.manage(wanted(), nodes, {}).create == ("a",)


def test_a_node_that_fits_no_longer_loses_its_pod() -> None:
    pods = daemon_sets.by_node([pod_on("a", NEW)])
    assert daemon_sets.manage(wanted(), [node("a")], pods).delete == ("agent-a",)


@pytest.mark.parametrize(
    "effect, expected", [("NoSchedule", (False, True)), ("NoExecute", (False, False))]
)
def test_a_taint_keeps_new_pods_away_and_may_take_old_ones_along(
    effect: str, expected: tuple[bool, bool]
) -> None:
    tainted = node(labels=LINE, taints=({"key": "mine", "effect": effect},))
    assert daemon_sets.should_run(wanted(), tainted) == expected


@pytest.mark.parametrize(
    "key", ["not-ready", "unreachable", "disk-pressure", "memory-pressure", "unschedulable"]
)
def test_what_a_node_suffers_by_itself_is_tolerated(key: str) -> None:
    effect = "NoExecute" if key in ("not-ready", "unreachable") else "NoSchedule"
    tainted = node(labels=LINE, taints=({"key": f"node.kubernetes.io/{key}", "effect": effect},))
    assert daemon_sets.should_run(wanted(), tainted) == (True, True)


def test_a_pod_is_for_its_node_by_name() -> None:
    made = daemon_sets.pod_for(wanted(), "cam-1", NEW)
    assert daemon_sets.target_node(made) == "cam-1"
    assert made["metadata"]["labels"][HASH_LABEL] == NEW


def test_a_failed_pod_is_told_apart_from_one_that_is_too_many() -> None:
    failed = pod_on("a", NEW)
    failed["status"]["phase"] = "Failed"
    changes = daemon_sets.manage(wanted(), [node("a", labels=LINE)], daemon_sets.by_node([failed]))
    assert (changes.delete, changes.failed) == (("agent-a",), ("agent-a",))


def test_the_status_counts_nodes() -> None:
    nodes = [node(name, labels=LINE) for name in "abc"] + [node("d")]
    pods = [pod_on("a", NEW), pod_on("b", OLD, ready=False), pod_on("d", OLD)]
    usable = {"agent-a": True, "agent-b": False, "agent-d": True}
    status = daemon_sets.status_of(wanted(), nodes, daemon_sets.by_node(pods), NEW, usable)
    assert status == {
        "desiredNumberScheduled": 3,
        "currentNumberScheduled": 2,
        "numberMisscheduled": 1,
        "numberReady": 1,
        "updatedNumberScheduled": 1,
        "numberAvailable": 1,
        "numberUnavailable": 2,
        "observedGeneration": 1,
    }


def test_equal_templates_have_one_hash() -> None:
    template = wanted()["spec"]["template"]
    assert daemon_sets.template_hash(template) == daemon_sets.template_hash(copy.deepcopy(template))
    other = copy.deepcopy(template)
    other["spec"]["containers"][0]["image"] = "another"
    assert daemon_sets.template_hash(template) != daemon_sets.template_hash(other)


def test_a_revision_brings_the_template_back() -> None:
    found = daemon_sets.revision_of(wanted(), 3)
    assert found["revision"] == 3
    assert found["data"]["spec"]["template"]["$patch"] == "replace"
