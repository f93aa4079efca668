"""Eviction of pods, which disruption budgets may forbid; see ``pkg/registry/core/pod/storage``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud.api_objects import clone
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.cloud.node_client import with_condition
from edgefleet_kubernetes.cloud.node_disruption import check_eviction

if TYPE_CHECKING:
    from edgefleet_kubernetes.cloud.api_calls import ApiCall, Target
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store


_EVICTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}


class Evictions:
    """Answers evictions.

    Args:
        store: of pods and budgets.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def evict(self, call: ApiCall, target: Target) -> Object:
        """Delete a pod where no budget forbids it.

        Raises:
            Refused: a budget forbids it now (429).
        """
        options = call.document().get("deleteOptions") or {}
        with self._store.lock:
            pod = self._store.get("Pod", target.name, target.namespace)
            namespace = target.namespace
            budgets = self._store.list("PodDisruptionBudget", namespace)
            check_eviction(pod, budgets, self._store.list("Pod", namespace))
            self._mark(pod)
            grace = options.get("gracePeriodSeconds")
            self._store.delete(
                "Pod",
                target.name,
                target.namespace,
                grace_s=None if grace is None else int(grace),
                how=call.how(),
            )
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}

    def _mark(self, pod: Object) -> None:
        """Note who takes the pod away: ``addConditionAndDeletePod`` of the API server."""
        marked = clone(pod)
        with_condition(marked.setdefault("status", {}), _EVICTED)
        self._store.update(marked, how=Write(manager="kube-apiserver", subresource="status"))
