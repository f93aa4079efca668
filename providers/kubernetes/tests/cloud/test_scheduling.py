"""Where pods go, and what people read where they can't go."""

from __future__ import annotations

from typing import Any

import pytest

from edgefleet_kubernetes.cloud.node_matching import share, tolerates
from edgefleet_kubernetes.cloud.scheduler import place, requests
from providers.kubernetes.tests.cloud.node_bench import Object, node, pod, python

DEDICATED = {"key": "dedicated", "value": "vision", "effect": "NoSchedule"}


def asking(**amounts: str) -> Object:
    """A pod that asks for resources."""
    return pod("one", python("", resources={"requests": amounts}))


def running(on: str, **amounts: str) -> Object:
    """A pod that runs on a node."""
    found = asking(**amounts)
    found["spec"]["nodeName"] = on
    found["status"] = {"phase": "Running"}
    return found


def test_a_pod_goes_where_most_is_free() -> None:
    nodes = [node("n-1"), node("n-2")]
    assert place(asking(cpu="1"), nodes, [running("n-1", cpu="500m")]).node == "n-2"


def test_ended_pods_take_no_room() -> None:
    ended = running("n-1", cpu="2")
    ended["status"]["phase"] = "Succeeded"
    assert place(asking(cpu="2"), [node("n-1")], [ended]).node == "n-1"


def test_a_cluster_without_nodes_says_so() -> None:
    assert place(pod(), [], []).message == "no nodes available to schedule pods"


def test_a_resource_that_no_node_has_is_named() -> None:
    found = place(asking(**{"nvidia.com/gpu": "1"}), [node("a"), node("b"), node("c")], [])
    assert found.node is None
    assert found.message.startswith("0/3 nodes are available: 3 Insufficient nvidia.com/gpu. ")


def test_each_reason_is_counted_and_they_are_sorted() -> None:
    nodes = [
        node("a"),
        node("b", taints=(DEDICATED,)),
        node("c", resources={"nvidia.com/gpu": "1"}),
    ]
    wanted = asking(**{"nvidia.com/gpu": "1", "cpu": "8"})
    message = place(wanted, nodes, []).message
    assert message == (
        "0/3 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint "
        "{dedicated: vision}, 2 Insufficient cpu. preemption: 0/3 nodes are available: "
        "3 Preemption is not helpful for scheduling."
    )


def test_what_other_pods_hold_may_come_free() -> None:
    message = place(asking(cpu="1"), [node("a")], [running("a", cpu="2")]).message
    assert message.endswith("1 No preemption victims found for incoming pod.")


def test_a_node_selector_that_fits_no_node_is_the_reason() -> None:
    message = place(pod(nodeSelector={"group": "line"}), [node()], []).message
    assert "1 node(s) didn't match Pod's node affinity/selector" in message


def test_a_cordoned_node_takes_no_pod() -> None:
    cordoned = node()
    cordoned["spec"]["unschedulable"] = True
    assert "1 node(s) were unschedulable" in place(pod(), [cordoned], []).message


@pytest.mark.parametrize(
    "toleration, expected",
    [
        ({"operator": "Exists"}, True),
        ({"key": "dedicated", "operator": "Exists"}, True),
        ({"key": "dedicated", "value": "vision"}, True),
        ({"key": "dedicated", "value": "speech"}, False),
        ({"key": "dedicated", "value": "vision", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_a_toleration_is_for_its_key_value_and_effect(
    toleration: dict[str, Any], *, expected: bool
) -> None:
    assert tolerates(toleration, DEDICATED) is expected
    assert (place(pod(tolerations=[toleration]), [node(taints=(DEDICATED,))], []).node) == (
        "n-1" if expected else None
    )


def affinity(*terms: Object) -> Object:
    """Required node affinity."""
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}
        }
    }


@pytest.mark.parametrize(
    "operator, values, expected",
    [
        ("In", ["jetson", "x86"], "n-1"),
        ("NotIn", ["jetson"], None),
        ("Exists", [], "n-1"),
        ("DoesNotExist", [], None),
    ],
)
def test_node_affinity_takes_nodes_by_their_labels(
    operator: str, values: list[str], expected: str | None
) -> None:
    term = {"matchExpressions": [{"key": "kind", "operator": operator, "values": values}]}
    nodes = [node(labels={"kind": "jetson"})]
    assert place(pod(affinity=affinity(term)), nodes, []).node == expected


@pytest.mark.parametrize("operator, expected", [("Gt", "n-1"), ("Lt", None)])
def test_node_affinity_compares_whole_numbers(operator: str, expected: str | None) -> None:
    term = {"matchExpressions": [{"key": "memory", "operator": operator, "values": ["4"]}]}
    nodes = [node(labels={"memory": "8"})]
    assert place(pod(affinity=affinity(term)), nodes, []).node == expected


def test_a_pod_for_one_node_waits_for_that_node() -> None:
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}
    wanted = pod("one", python("", resources={"requests": {"cpu": "4"}}), affinity=affinity(term))
    message = place(wanted, [node("a"), node("b")], []).message
    assert message.startswith(
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) "
        "[NodeAffinity]."
    )


def test_two_pods_share_no_host_port() -> None:
    port = {"ports": [{"containerPort": 80, "hostPort": 80}]}
    there = pod("other", python("", **port))
    there["spec"]["nodeName"] = "n-1"
    message = place(pod("one", python("", **port)), [node()], [there]).message
    assert "1 node(s) didn't have free ports for the requested pod ports" in message


def test_a_node_takes_no_more_pods_than_it_may() -> None:
    full = node(resources={"pods": "1"})
    assert "1 Too many pods" in place(pod(), [full], [running("n-1")]).message


def volume_for(*names: str) -> Object:
    """A volume that lies on nodes of these host names."""
    term = {"key": "kubernetes.io/hostname", "operator": "In", "values": list(names)}
    terms = [{"matchExpressions": [term]}]
    return {"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}}


def hosts(*names: str) -> list[Object]:
    """Nodes with the label that tells their host names."""
    return [node(name, labels={"kubernetes.io/hostname": name}) for name in names]


def test_a_pod_goes_where_all_its_volumes_are() -> None:
    volumes = [volume_for("b", "c"), volume_for("a", "c"), {"spec": {}}]
    assert place(pod(), hosts("a", "b", "c"), [], volumes).node == "c"


def test_a_volume_on_no_node_that_fits_is_the_reason() -> None:
    message = place(pod(), hosts("a", "b"), [], [volume_for("a"), volume_for("b")]).message
    assert message.startswith(
        "0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity."
    )


def test_init_containers_ask_one_after_the_other() -> None:
    spec = pod("one", python("", resources={"requests": {"cpu": "1"}}))["spec"]
    spec["initContainers"] = [{**python(""), "resources": {"requests": {"cpu": "3"}}}] * 2
    assert requests(spec) == {"cpu": 3}


@pytest.mark.parametrize(
    "value, whole, up, expected",
    [(2, 10, True, 2), ("25%", 10, True, 3), ("25%", 10, False, 2), ("100%", 3, True, 3)],
)
def test_a_share_of_nodes_is_rounded(
    value: str | int, whole: int, *, up: bool, expected: int
) -> None:
    assert share(value, whole, up=up) == expected
