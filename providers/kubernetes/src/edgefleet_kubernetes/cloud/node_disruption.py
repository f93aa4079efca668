"""PodDisruptionBudgets: what may be evicted, as ``pkg/controller/disruption`` reckons.

A budget that says ``maxUnavailable``, or a share, needs to know how many pods are wanted, and asks
the ``scale`` of their owners. DaemonSets and Jobs have none: such a budget allows no eviction at
all, and says so (https://github.com/kubernetes/kubernetes/issues/106309).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgefleet_kubernetes.cloud.api_objects import selects
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.node_matching import is_true

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_client import Client

_WITHOUT_SCALE = {"DaemonSet": "daemonsets.apps", "Job": "jobs.batch"}


class Room(NamedTuple):
    """What a budget allows now.

    Attributes:
        expected: pods that it is about.
        healthy: those that are ready.
        wanted: that must stay so.
        problem: why it allows nothing; empty where it could be reckoned.
    """

    expected: int
    healthy: int
    wanted: int
    problem: str = ""

    @property
    def allowed(self) -> int:
        """How many pods may go."""
        return 0 if self.problem else max(0, self.healthy - self.wanted)


def covers(budget: Object, pod: Object) -> bool:
    """Whether a budget is about a pod."""
    return budget["metadata"]["namespace"] == pod["metadata"]["namespace"] and selects(
        budget["spec"].get("selector"), pod["metadata"].get("labels") or {}
    )


def room(budget: Object, pods: Sequence[Object]) -> Room:
    """What a budget allows, with these pods in the cluster."""
    mine = [
        pod
        for pod in pods
        if covers(budget, pod) and (pod.get("status") or {}).get("phase") != "Succeeded"
    ]
    healthy = sum(
        is_true(pod, "Ready") and not pod["metadata"].get("deletionTimestamp") for pod in mine
    )
    least = budget["spec"].get("minAvailable", 1)
    if "maxUnavailable" not in budget["spec"] and isinstance(least, int):
        return Room(len(mine), healthy, least)
    for pod in mine:
        for owner in pod["metadata"].get("ownerReferences") or ():
            if owner["kind"] in _WITHOUT_SCALE:
                problem = (
                    f"{_WITHOUT_SCALE[owner['kind']]} does not implement the scale subresource"
                )
                return Room(0, healthy, 0, problem)
    return Room(0, healthy, 0, "no controllers of these pods say how many are wanted")


def check_eviction(pod: Object, budgets: Sequence[Object], pods: Sequence[Object]) -> None:
    """Nothing where a pod may be evicted.

    Raises:
        Refused: a budget has no room for it (429), or more than one is about it (500).
    """
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed", "Pending") or pod["metadata"].get("deletionTimestamp"):
        return
    mine = [one for one in budgets if covers(one, pod)]
    if len(mine) > 1:
        raise Refused(
            500,
            "InternalError",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does "
            "not support.",
        )
    if not mine:
        return
    found = room(mine[0], pods)
    policy = mine[0]["spec"].get("unhealthyPodEvictionPolicy", "IfHealthyBudget")
    enough = found.wanted > 0 and found.healthy >= found.wanted
    if not is_true(pod, "Ready") and (policy == "AlwaysAllow" or enough):
        return
    if found.allowed < 1:
        name = mine[0]["metadata"]["name"]
        message = (
            f"The disruption budget {name} needs {found.wanted} healthy pods and has "
            f"{found.healthy} currently"
        )
        raise Refused(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            details={"causes": [{"reason": "DisruptionBudget", "message": message}]},
        )


class Disruption:
    """Writes into budgets what they allow.

    Args:
        client: of the API server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def reconcile(self) -> None:
        """Look at every budget."""
        budgets = self._client.list("PodDisruptionBudget")
        if not budgets:
            return
        pods = self._client.list("Pod")
        for budget in budgets:
            found = room(budget, pods)
            generation = budget["metadata"].get("generation", 1)
            updated = self._client.set_status(
                budget,
                expectedPods=found.expected,
                currentHealthy=found.healthy,
                desiredHealthy=found.wanted,
                disruptionsAllowed=found.allowed,
                observedGeneration=generation,
            )
            if updated is not None:
                self._tell(updated, found, generation)

    def _tell(self, budget: Object, found: Room, generation: int) -> None:
        reason = "SufficientPods" if found.allowed else "InsufficientPods"
        told = {
            "type": "DisruptionAllowed",
            "status": "True" if found.allowed else "False",
            "reason": "SyncFailed" if found.problem else reason,
            "message": found.problem,
            "observedGeneration": generation,
        }
        before: Object = next(
            (
                one
                for one in budget["status"].get("conditions") or ()
                if one["type"] == told["type"]
            ),
            {},
        )
        if any(before.get(key) != value for key, value in told.items()):
            self._client.set_condition(budget, told)
            if found.problem:
                message = f"Failed to calculate the number of expected pods: {found.problem}"
                self._client.event(budget, "CalculateExpectedPodCountFailed", message, warning=True)
