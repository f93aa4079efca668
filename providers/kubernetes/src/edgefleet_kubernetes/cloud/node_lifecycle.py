"""What a cluster makes of nodes that are silent or short, and of pods that must leave them.

As ``pkg/controller/nodelifecycle``, ``tainteviction`` and ``podgc`` of kubernetes/kubernetes:

- A node that hasn't been heard of for a while has conditions that are Unknown, and the taint
  ``unreachable``; its pods aren't ready. Pods that don't tolerate it leave in time.
- A pod that is to leave stays until its kubelet says that it has ended.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud.api_objects import clone, now
from edgefleet_kubernetes.cloud.node_client import with_condition
from edgefleet_kubernetes.cloud.node_matching import condition, is_true, tolerates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_client import Client

UNREACHABLE, NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
DISK = "node.kubernetes.io/disk-pressure"
_OURS = (UNREACHABLE, NOT_READY, DISK)


def taints_of(node: Object) -> list[Object]:
    """The taints that a node's conditions make."""
    ready = condition(node, "Ready")
    found: list[Object] = []
    if ready is None or ready["status"] == "False":
        found += [{"key": NOT_READY, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    elif ready["status"] == "Unknown":
        found += [{"key": UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    if is_true(node, "DiskPressure"):
        found.append({"key": DISK, "effect": "NoSchedule"})
    return found


def leaves_after_s(pod: Object, node: Object, default_s: float) -> float | None:
    """When a pod leaves its node because of taints: seconds after they came; None for never.

    Args:
        pod: on the node.
        node: with its taints.
        default_s: that pods which say nothing stay while the node isn't ready.
    """
    soonest: float | None = None
    for taint in (node.get("spec") or {}).get("taints") or ():
        if taint["effect"] != "NoExecute":
            continue
        mine = [one for one in pod["spec"].get("tolerations") or () if tolerates(one, taint)]
        if not mine:
            # The admission plugin DefaultTolerationSeconds gives 300 s for these two.
            stays = default_s if taint["key"] in (UNREACHABLE, NOT_READY) else 0.0
        elif any(one.get("tolerationSeconds") is None for one in mine):
            continue
        else:
            stays = float(min(max(0, one["tolerationSeconds"]) for one in mine))
        soonest = stays if soonest is None else min(soonest, stays)
    return soonest


class NodeLifecycle:
    """The controller.

    Args:
        client: of the API server.
        grace_s: until a silent node isn't ready.
        eviction_s: that pods which say nothing stay on a node that isn't ready.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        *,
        grace_s: float,
        eviction_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._clock = client, clock
        self._grace_s, self._eviction_s = grace_s, eviction_s
        self._heard: dict[str, float] = {}
        self._tainted: dict[str, float] = {}

    def hear(self, node: str) -> None:
        """Take note of a node's heartbeat."""
        self._heard[node] = self._clock()

    def reconcile(self) -> None:
        """Look at every node, and at the pods on it."""
        pods = self._client.list("Pod")
        nodes = self._client.list("Node")
        for node in nodes:
            mine = [pod for pod in pods if pod["spec"].get("nodeName") == node["metadata"]["name"]]
            self._evict(self._taint(self._silent(node, mine)), mine)
        self._collect(pods, {node["metadata"]["name"] for node in nodes})

    def _silent(self, node: Object, pods: Sequence[Object]) -> Object:
        name, clock = node["metadata"]["name"], self._clock()
        heard = self._heard.setdefault(name, clock)
        ready = condition(node, "Ready")
        if clock - heard < self._grace_s or (ready or {}).get("status") == "Unknown":
            return node

        def edit(found: Object) -> None:
            for kind in ("MemoryPressure", "DiskPressure", "PIDPressure", "Ready"):
                with_condition(
                    found.setdefault("status", {}),
                    {
                        "type": kind,
                        "status": "Unknown",
                        "reason": "NodeStatusUnknown",
                        "message": "Kubelet stopped posting node status.",
                        "lastHeartbeatTime": now(),
                    },
                )

        self._client.event(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        for pod in pods:
            if is_true(pod, "Ready"):
                self._client.event(pod, "NodeNotReady", "Node is not ready", warning=True)
                self._client.set_condition(
                    pod,
                    {"type": "Ready", "status": "False", "reason": "NodeNotReady"},
                )
        return self._client.change(node, edit, subresource="status") or node

    def _taint(self, node: Object) -> Object:
        before = (node.get("spec") or {}).get("taints") or []
        others = [one for one in before if one["key"] not in _OURS]
        cordon = "node.kubernetes.io/unschedulable"
        others = [one for one in others if one["key"] != cordon]
        if (node.get("spec") or {}).get("unschedulable"):
            others.append({"key": cordon, "effect": "NoSchedule"})
        wanted = [*others, *taints_of(node)]
        if [(one["key"], one["effect"]) for one in before] == [
            (one["key"], one["effect"]) for one in wanted
        ]:
            return node

        def edit(found: Object) -> None:
            spec = found.setdefault("spec", {})
            spec["taints"] = clone(wanted)
            if not wanted:
                del spec["taints"]

        return self._client.change(node, edit) or node

    def _evict(self, node: Object, pods: Sequence[Object]) -> None:
        name, clock = node["metadata"]["name"], self._clock()
        taints = (node.get("spec") or {}).get("taints") or ()
        if not any(one["effect"] == "NoExecute" for one in taints):
            self._tainted.pop(name, None)
            return
        since = self._tainted.setdefault(name, clock)
        for pod in pods:
            if pod["metadata"].get("deletionTimestamp"):
                continue
            wait = leaves_after_s(pod, node, self._eviction_s)
            if wait is not None and clock - since >= wait:
                meta = pod["metadata"]
                words = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
                self._client.event(pod, "TaintManagerEviction", words)
                self._client.set_condition(
                    pod,
                    {
                        "type": "DisruptionTarget",
                        "status": "True",
                        "reason": "DeletionByTaintManager",
                        "message": "Taint manager: deleting due to NoExecute taint",
                    },
                )
                self._client.delete(pod)

    def _collect(self, pods: Sequence[Object], nodes: set[str]) -> None:
        """Delete pods whose node is gone."""
        for pod in pods:
            where = pod["spec"].get("nodeName")
            if where and where not in nodes:
                self._client.set_status(pod, phase="Failed", reason="NodeLost")
                self._client.delete(pod, grace_s=0)
