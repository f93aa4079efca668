"""Where a pod goes, and why it can't go anywhere: the scheduler's filters in their order.

`place` is pure; its words are those of ``pkg/scheduler`` of kubernetes/kubernetes, because people
and tools read them. A node is reported with what its first failing filter says, as there.
"""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple

from edgefleet_kubernetes.cloud.api_quantities import amount
from edgefleet_kubernetes.cloud.node_matching import (
    condition,
    fits_node,
    holds_volume,
    untolerated,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_client import Client

COMPONENT = "default-scheduler"
_ENDED = ("Succeeded", "Failed")


class Placement(NamedTuple):
    """Where a pod goes: a node, or None and the reason."""

    node: str | None
    message: str = ""


class _Refusal(NamedTuple):
    reasons: tuple[str, ...]
    final: bool = True
    """Whether nothing changes when other pods go."""


def requests(spec: Mapping[str, object]) -> dict[str, Decimal]:
    """What a pod asks for: the sum of its containers, or its hungriest init container."""
    total: dict[str, Decimal] = {}
    for container in _list(spec, "containers"):
        for name, asked in _asked(container).items():
            total[name] = total.get(name, Decimal(0)) + asked
    for container in _list(spec, "initContainers"):
        for name, asked in _asked(container).items():
            total[name] = max(total.get(name, Decimal(0)), asked)
    return total


def _list(spec: Mapping[str, object], key: str) -> list[Object]:
    found = spec.get(key) or []
    return found if isinstance(found, list) else []


def _asked(container: Object) -> dict[str, Decimal]:
    resources = container.get("resources") or {}
    both = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount(given) for name, given in both.items()}


def place(
    pod: Object, nodes: Sequence[Object], pods: Iterable[Object], volumes: Sequence[Object] = ()
) -> Placement:
    """Where a pod goes.

    Args:
        pod: that has no node yet.
        nodes: of the cluster.
        pods: of the cluster, bound or not.
        volumes: PersistentVolumes that the pod's claims have.

    Returns:
        The node with the most room, or the message of the event ``FailedScheduling``.
    """
    if not nodes:
        return Placement(None, "no nodes available to schedule pods")
    there: dict[str, list[Object]] = {}
    for other in pods:
        where = other["spec"].get("nodeName")
        if where and (other.get("status") or {}).get("phase") not in _ENDED:
            there.setdefault(where, []).append(other)
    refusals: list[_Refusal] = []
    fitting: list[tuple[Decimal, int, str]] = []
    only = _only(pod["spec"])
    for node in nodes:
        name = node["metadata"]["name"]
        running = there.get(name, [])
        refusal = (
            _Refusal(("node(s) didn't satisfy plugin(s) [NodeAffinity]",))
            if only is not None and name not in only
            else _refusal(pod["spec"], node, running, volumes)
        )
        if refusal is None:
            fitting.append((_load(pod["spec"], node, running), len(running), name))
        else:
            refusals.append(refusal)
    if fitting:
        return Placement(min(fitting)[2])
    return Placement(None, _message(refusals))


def _only(spec: Object) -> set[str] | None:
    """The names that node affinity is for, where all its terms are by name; else None."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    names: set[str] = set()
    terms = required.get("nodeSelectorTerms") or ()
    for term in terms:
        fields = [one for one in term.get("matchFields") or () if one["operator"] == "In"]
        if not fields:
            return None
        names.update(value for one in fields for value in one["values"])
    return names if terms else None


def _refusal(
    spec: Object, node: Object, running: Sequence[Object], volumes: Sequence[Object]
) -> _Refusal | None:
    if (node.get("spec") or {}).get("unschedulable") and untolerated(
        spec, _cordoned(), ("NoSchedule",)
    ):
        return _Refusal(("node(s) were unschedulable",))
    taint = untolerated(spec, node, ("NoSchedule", "NoExecute"))
    if taint is not None:
        reason = f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value') or ''}}}"
        return _Refusal((reason,))
    if not fits_node(spec, node):
        return _Refusal(("node(s) didn't match Pod's node affinity/selector",))
    taken = {port for other in running for port in _host_ports(other["spec"])}
    if taken.intersection(_host_ports(spec)):
        reason = "node(s) didn't have free ports for the requested pod ports"
        return _Refusal((reason,), final=False)
    short = _short_of(spec, node, running)
    if short is None and not all(holds_volume(volume, node) for volume in volumes):
        return _Refusal(("node(s) didn't match PersistentVolume's node affinity",))
    return short


def _cordoned() -> Object:
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    return {"spec": {"taints": [taint]}}


def _host_ports(spec: Object) -> Iterator[tuple[str, int]]:
    for container in _list(spec, "containers"):
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield port.get("protocol", "TCP"), port["hostPort"]


def _allocatable(node: Object) -> dict[str, Decimal]:
    found = (node.get("status") or {}).get("allocatable") or {}
    return {name: amount(given) for name, given in found.items()}


def _used(running: Sequence[Object]) -> dict[str, Decimal]:
    used: dict[str, Decimal] = {}
    for other in running:
        for name, asked in requests(other["spec"]).items():
            used[name] = used.get(name, Decimal(0)) + asked
    return used


def _short_of(spec: Object, node: Object, running: Sequence[Object]) -> _Refusal | None:
    allocatable, used = _allocatable(node), _used(running)
    reasons: list[str] = []
    final = False
    if len(running) + 1 > allocatable.get("pods", Decimal(110)):
        reasons.append("Too many pods")
    for name, asked in requests(spec).items():
        there = allocatable.get(name, Decimal(0))
        if asked and asked > there - used.get(name, Decimal(0)):
            reasons.append(f"Insufficient {name}")
            final = final or asked > there
    return _Refusal(tuple(reasons), final) if reasons else None


def _load(spec: Object, node: Object, running: Sequence[Object]) -> Decimal:
    """How full the node would be, as ``NodeResourcesFit`` with LeastAllocated sees it."""
    allocatable, used, asked = _allocatable(node), _used(running), requests(spec)
    parts = [
        (used.get(name, Decimal(0)) + asked.get(name, Decimal(0))) / allocatable[name]
        for name in ("cpu", "memory")
        if allocatable.get(name)
    ]
    return sum(parts, Decimal(0))


def _message(refusals: Sequence[_Refusal]) -> str:
    counts = Counter(reason for one in refusals for reason in one.reasons)
    head = f"0/{len(refusals)} nodes are available:"
    why = ", ".join(sorted(f"{number} {reason}" for reason, number in counts.items()))
    helpless = "Preemption is not helpful for scheduling"
    victims = "No preemption victims found for incoming pod"
    ways = Counter(helpless if one.final else victims for one in refusals)
    then = ", ".join(sorted(f"{number} {reason}" for reason, number in ways.items()))
    return f"{head} {why}. preemption: {head} {then}."


class Scheduler:
    """Binds pods that have no node.

    Args:
        client: of the API server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def reconcile(self) -> None:
        """Look at each pod that waits."""
        pods = self._client.list("Pod")
        nodes = self._client.list("Node")
        for pod in pods:
            meta = pod["metadata"]
            if pod["spec"].get("nodeName") or meta.get("deletionTimestamp"):
                continue
            if pod["spec"].get("schedulerName", COMPONENT) != COMPONENT:
                continue
            placement = place(pod, nodes, pods, self._volumes(pod))
            if placement.node is None:
                self._refuse(pod, placement.message)
            else:
                self._bind(pod, placement.node)
                pods = self._client.list("Pod")

    def _volumes(self, pod: Object) -> list[Object]:
        """The PersistentVolumes that a pod's claims name; a claim without one ties it nowhere."""
        found: list[Object] = []
        for one in pod["spec"].get("volumes") or ():
            name = (one.get("persistentVolumeClaim") or {}).get("claimName")
            claim = name and self._client.get(
                "PersistentVolumeClaim", pod["metadata"]["namespace"], name
            )
            bound = claim and claim["spec"].get("volumeName")
            volume = bound and self._client.get("PersistentVolume", "", bound)
            if volume:
                found.append(volume)
        return found

    def _bind(self, pod: Object, node: str) -> None:
        def bound(found: Object) -> None:
            found["spec"]["nodeName"] = node

        if self._client.change(pod, bound) is None:
            return
        self._client.set_condition(pod, {"type": "PodScheduled", "status": "True"})
        meta = pod["metadata"]
        self._client.event(
            pod,
            "Scheduled",
            f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}",
            component=COMPONENT,
        )

    def _refuse(self, pod: Object, message: str) -> None:
        before = condition(pod, "PodScheduled")
        if before is not None and before.get("message") == message:
            return
        self._client.set_condition(
            pod,
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
            },
        )
        self._client.event(pod, "FailedScheduling", message, warning=True, component=COMPONENT)
