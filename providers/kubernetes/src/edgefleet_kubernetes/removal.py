"""Takes away what install made in a cluster, and nothing else.

Rules kept here:

- Only what has the fleet's labels goes, by its own name.
- Data go only where somebody said so: pointers, state, reports.
- A namespace goes when install made it and nothing of others is left in it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from edgefleet_kubernetes.cluster import is_ours
from edgefleet_kubernetes.names import (
    FLEET,
    GROUP,
    MANAGED_BY,
    MANAGER,
    PART,
    fleet_labels,
    serving_secret,
)
from edgefleet_kubernetes.pod import CLUSTER_CA, ORDERS_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgefleet_kubernetes.cluster import Cluster
    from edgefleet_kubernetes.reading import Object
    from edgefleet_kubernetes.settings import KubernetesSettings

_log = logging.getLogger(__name__)

PARTS = frozenset({"access", "device", "runtime", "serving", "store"})
"""Of what install makes."""
_FIRST = ("DaemonSet", "PodDisruptionBudget", "Service")
_GLOBAL = (
    "ValidatingAdmissionPolicyBinding",
    "ValidatingAdmissionPolicy",
    "ClusterRoleBinding",
    "ClusterRole",
)
_ACCESS = ("RoleBinding", "Role")
_KEPT = frozenset({"PersistentVolume", "PersistentVolumeClaim"})
"""Never pruned: pods may still have them mounted."""
_TELLING = (
    "ConfigMap",
    "PersistentVolumeClaim",
    "Pod",
    "Role",
    "Secret",
    "Service",
    "ServiceAccount",
)
"""Kinds by which one sees whether somebody else uses a namespace."""


def serving_document(settings: KubernetesSettings, token: str, orders: str) -> Object:
    """The Secret with the token that applications show to the runtime.

    Args:
        settings: of the fleet.
        token: in base64.
        orders: in base64, the token of whoever gives orders to one device.
    """
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": serving_secret(settings.prefix),
            "namespace": settings.namespace,
            "labels": fleet_labels(settings.prefix, part="serving"),
        },
        "type": "Opaque",
        "data": {"token": token, ORDERS_KEY: orders},
    }


class Removal:
    """Takes away what is a fleet's in one cluster.

    Args:
        cluster: where.
        settings: of the fleet.
    """

    def __init__(self, cluster: Cluster, settings: KubernetesSettings) -> None:
        self._cluster = cluster
        self._settings = settings

    def prune(self, wanted: Iterable[Object], groups: Iterable[str]) -> None:
        """Delete what an earlier install made and this one doesn't.

        Args:
            wanted: what this one has applied.
            groups: that it was for; what is another group's stays.
        """
        stay = {_key(document) for document in wanted}
        about = {None, *groups}
        for found in list(self._installed()):
            group = found["metadata"]["labels"].get(GROUP)
            if found["kind"] in _KEPT or group not in about or _key(found) in stay:
                continue
            if found["kind"] in {"DaemonSet", "Secret"}:
                continue  # a group goes with the whole fleet alone
            self._delete(found)

    def remove(self, *, data: bool) -> None:
        """Delete what install made; with ``data`` all that is the fleet's."""
        for found in list(self._installed()):
            self._delete(found)
        if not data:
            return
        for namespace in self._namespaces():
            for found in list(self._ours("ConfigMap", namespace)):
                self._delete(found)
        for namespace in reversed(self._namespaces()):
            self._remove_namespace(namespace)

    def _installed(self) -> Iterator[Object]:
        """What install made, in the order in which it goes."""
        settings = self._settings
        for kind in _FIRST:
            yield from self._made(kind, settings.namespace)
        for kind in _GLOBAL:
            yield from self._made(kind)
        for kind in _ACCESS:
            for namespace in self._namespaces():
                yield from self._made(kind, namespace)
        for kind in ("Secret", "PersistentVolumeClaim", "ServiceAccount"):
            yield from self._made(kind, settings.namespace)
        yield from self._made("PersistentVolume")

    def _namespaces(self) -> tuple[str, ...]:
        settings = self._settings
        return (settings.namespace, settings.reports_namespace, settings.training_namespace)

    def _made(self, kind: str, namespace: str | None = None) -> Iterator[Object]:
        for found in self._ours(kind, namespace):
            if found["metadata"]["labels"].get(PART) in PARTS:
                yield found

    def _ours(self, kind: str, namespace: str | None = None) -> Iterator[Object]:
        wanted = {FLEET: self._settings.prefix, MANAGED_BY: MANAGER}
        yield from self._cluster.list(kind, namespace, labels=wanted)

    def _delete(self, found: Object) -> None:
        metadata = found["metadata"]
        self._cluster.delete(found["kind"], metadata["name"], metadata.get("namespace"))

    def _remove_namespace(self, name: str) -> None:
        there = self._cluster.get("Namespace", name)
        if there is None or not is_ours(there, self._settings.prefix):
            return
        others = next(self._of_others(name), None)
        if others is not None:
            _log.warning("namespace %s stays: %s in it isn't this fleet's", name, others)
            return
        self._cluster.delete("Namespace", name)

    def _of_others(self, namespace: str) -> Iterator[str]:
        own = {("ConfigMap", CLUSTER_CA), ("ServiceAccount", "default")}
        for kind in _TELLING:
            for found in self._cluster.list(kind, namespace):
                name = found["metadata"]["name"]
                if (kind, name) not in own and not is_ours(found, self._settings.prefix):
                    yield f"{kind} {name}"


def _key(found: Object) -> tuple[str, str | None, str]:
    metadata = found["metadata"]
    return (found["kind"], metadata.get("namespace"), metadata["name"])
