"""Carries out what `daemon_sets` decides: revisions, pods, status and Events of DaemonSets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud import daemon_sets
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.daemon_sets import HASH_LABEL, template_hash
from edgefleet_kubernetes.cloud.node_client import age_s
from edgefleet_kubernetes.cloud.node_matching import is_true, owned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_client import Client

COMPONENT = "daemonset-controller"
HISTORY_LIMIT = 10


class DaemonSetController:
    """The controller.

    Args:
        client: of the API server.
        backoff_s: between two pods for a node whose pods fail; it doubles.
        clock: monotonic seconds.
    """

    def __init__(
        self, client: Client, *, backoff_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._backoff_s, self._clock = client, backoff_s, clock
        self._failed: dict[tuple[str, str], tuple[float, float]] = {}
        self._ready: dict[str, float] = {}

    def reconcile(self) -> None:
        """Look at every DaemonSet."""
        nodes = self._client.list("Node")
        all_pods = self._client.list("Pod")
        self._watch_ready(all_pods)
        for found in self._client.list("DaemonSet"):
            if not found["metadata"].get("deletionTimestamp"):
                pods = [pod for pod in all_pods if owned(pod, found)]
                self._reconcile(found, nodes, pods)

    def _reconcile(self, found: Object, nodes: Sequence[Object], pods: Sequence[Object]) -> None:
        digest = self._revise(found)
        placed = daemon_sets.by_node(pods)
        usable = self._available(found, pods)
        changes = daemon_sets.manage(found, nodes, placed)
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        for name in changes.delete:
            pod = by_name[name]
            if name not in changes.failed or self._may_replace(found, pod):
                self._delete(found, pod)
        for node in changes.create:
            self._create(found, node, digest)
        if not changes.create and not changes.delete:
            old = daemon_sets.rolling_update(found, nodes, placed, digest, usable)
            for name in old:
                self._delete(found, by_name[name])
        status = daemon_sets.status_of(found, nodes, placed, digest, usable)
        names = ("numberAvailable", "numberUnavailable")
        self._client.set_status(found, **{**dict.fromkeys(names), **status})

    # -- pods

    def _create(self, found: Object, node: str, digest: str) -> None:
        try:
            pod = self._client.create(daemon_sets.pod_for(found, node, digest))
        except Refused as refused:
            message = f"Error creating: {refused.message}"
            self._client.event(found, "FailedCreate", message, warning=True)
        else:
            self._client.event(found, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")

    def _delete(self, found: Object, pod: Object) -> None:
        self._client.delete(pod)
        self._client.event(found, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")

    def _may_replace(self, found: Object, pod: Object) -> bool:
        """Whether the pause after a failed pod is over; tells of the pod where it is."""
        node = daemon_sets.target_node(pod)
        key = found["metadata"]["uid"], node
        now = self._clock()
        due, pause = self._failed.get(key, (now, self._backoff_s / 2))
        if now < due:
            return False
        self._failed[key] = (now + pause * 2, min(pause * 2, self._backoff_s * 900))
        failed = pod["status"]["phase"] == "Failed"
        self._client.event(
            found,
            "FailedDaemonPod" if failed else "SucceededDaemonPod",
            f"Found {'failed' if failed else 'succeeded'} daemon pod "
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']} on node {node}, "
            f"will try to {'kill' if failed else 'delete'} it",
            warning=failed,
        )
        return True

    def _watch_ready(self, pods: Sequence[Object]) -> None:
        """Note since when pods are ready: more exactly than their conditions' whole seconds."""
        now = self._clock()
        ready = {}
        for pod in pods:
            since = daemon_sets.ready_since(pod)
            if since is not None:
                uid = pod["metadata"]["uid"]
                ready[uid] = self._ready.get(uid, now - max(0.0, age_s(since) - 1))
        self._ready = ready

    def _available(self, found: Object, pods: Sequence[Object]) -> Mapping[str, bool]:
        least, now = found["spec"].get("minReadySeconds", 0), self._clock()
        return {
            pod["metadata"]["name"]: is_true(pod, "Ready")
            and now - self._ready.get(pod["metadata"]["uid"], now) >= least
            for pod in pods
        }

    # -- revisions

    def _revise(self, found: Object) -> str:
        """Have a revision of the template as it is; its hash."""
        data = daemon_sets.revision_data(found)
        mine = [one for one in self._client.list("ControllerRevision") if owned(one, found)]
        highest = max((one["revision"] for one in mine), default=0)
        current = next((one for one in mine if one["data"] == data), None)
        if current is None:
            try:
                current = self._client.create(daemon_sets.revision_of(found, highest + 1))
            except Refused:
                return template_hash(found["spec"]["template"])
        elif current["revision"] < highest:

            def renumber(one: Object) -> None:
                one["revision"] = highest + 1

            self._client.change(current, renumber)
        self._forget(found, [one for one in mine if one is not current])
        return str(current["metadata"]["labels"][HASH_LABEL])

    def _forget(self, found: Object, old: Sequence[Object]) -> None:
        keep = found["spec"].get("revisionHistoryLimit", HISTORY_LIMIT)
        used = {
            (pod["metadata"].get("labels") or {}).get(HASH_LABEL)
            for pod in self._client.list("Pod")
            if owned(pod, found)
        }
        oldest = sorted(old, key=lambda one: one["revision"])
        for one in oldest[: max(0, len(oldest) - keep)]:
            if one["metadata"]["labels"][HASH_LABEL] not in used:
                self._client.delete(one)
