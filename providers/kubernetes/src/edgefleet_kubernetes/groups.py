"""A fleet's devices and groups in its clusters: labels of nodes, and a DaemonSet a group.

Rules kept here:

- A device is a node, by its name. Its group is one label of the node, so it is in one group.
- A node's labels are changed under its resource version; others' labels stay.
- Labels of a device that Kubernetes takes as labels are labels of its node, so that kubectl selects
  by them; the rest lie in an annotation.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConfigurationError, ConflictError, NotFoundError
from edgefleet_kubernetes.errors import problem_of
from edgefleet_kubernetes.names import (
    FLEET,
    GROUP,
    LABEL_DOMAIN,
    PART,
    report_name,
    runtime_name,
)
from edgefleet_kubernetes.reading import MORE_LABELS, more_labels, read_member

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet_kubernetes.cluster import Cluster
    from edgefleet_kubernetes.clusters import Clusters
    from edgefleet_kubernetes.reading import Member, Object
    from edgefleet_kubernetes.settings import KubernetesSettings

_TRIES = 10  # of a change of labels, while others change the node
# "Syntax and character set" of
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


class DeviceGroups:
    """Who is in which group, and where.

    Args:
        clusters: of the fleet.
        settings: of the fleet.
    """

    def __init__(self, clusters: Clusters, settings: KubernetesSettings) -> None:
        self._clusters = clusters
        self._settings = settings

    def counts(self) -> dict[str, int]:
        """Devices of each group: of those with a DaemonSet, and of those that nodes name."""
        found: dict[str, int] = {}
        for cluster in self._clusters:
            for daemon_set in self.daemon_sets(cluster):
                found.setdefault(daemon_set["metadata"]["labels"][GROUP], 0)
            for member in self.members_in(cluster, None):
                found[member.group] = found.get(member.group, 0) + 1
        return found

    def has(self, group: str) -> bool:
        """Whether there is such a group; a cluster that is away hides none that another has."""
        away: Exception | None = None
        for cluster in self._clusters:
            try:
                if self.is_in(cluster, group):
                    return True
            except Exception as error:
                if problem_of(error) is None:
                    raise
                away = away or error
        if away is not None:
            raise away
        return False

    def is_in(self, cluster: Cluster, group: str) -> bool:
        """Whether a cluster has the group: its DaemonSet, or a node that names it."""
        if self.daemon_set(cluster, group) is not None:
            return True
        return next(self.members_in(cluster, group), None) is not None

    def daemon_sets(self, cluster: Cluster) -> Iterator[Object]:
        """DaemonSets of the fleet's groups."""
        wanted = {FLEET: self._settings.prefix, PART: "runtime"}
        for found in cluster.list("DaemonSet", self._settings.namespace, labels=wanted):
            if GROUP in found["metadata"]["labels"]:
                yield found

    def daemon_set(self, cluster: Cluster, group: str) -> Object | None:
        """The DaemonSet of a group; None for none."""
        name = runtime_name(self._settings.prefix, group)
        return cluster.get("DaemonSet", name, self._settings.namespace)

    def members(self, group: str | None) -> dict[str, tuple[Cluster, Member]]:
        """Devices of one group or all, by name.

        Raises:
            ConfigurationError: nodes of two clusters have one name.
        """
        found: dict[str, tuple[Cluster, Member]] = {}
        for cluster in self._clusters:
            for member in self.members_in(cluster, group):
                if member.name in found:
                    raise _twice(member.name, found[member.name][0], cluster)
                found[member.name] = (cluster, member)
        return found

    def members_in(self, cluster: Cluster, group: str | None) -> Iterator[Member]:
        """Devices of one group or all, in one cluster."""
        wanted = {FLEET: self._settings.prefix, **({} if group is None else {GROUP: group})}
        for node in cluster.list("Node", labels=wanted):
            member = read_member(node, self._settings.prefix, cluster.context)
            if member is not None:
                yield member

    def find(self, device: str) -> tuple[Cluster, Member] | None:
        """A device of the fleet, and its cluster."""
        found: tuple[Cluster, Member] | None = None
        for cluster, node in self._nodes(device):
            member = read_member(node, self._settings.prefix, cluster.context)
            if member is None:
                continue
            if found is not None:
                raise _twice(device, found[0], cluster)
            found = (cluster, member)
        return found

    def _nodes(self, name: str) -> list[tuple[Cluster, Object]]:
        """Nodes of that name, in whichever cluster."""
        found = [(cluster, cluster.get("Node", name)) for cluster in self._clusters]
        return [(cluster, node) for cluster, node in found if node is not None]

    def node(self, device: str) -> tuple[Cluster, Object]:
        """The node that a device would be.

        Raises:
            NotFoundError: no cluster has it.
            ConfigurationError: several have.
        """
        found = self._nodes(device)
        if not found:
            raise NotFoundError(
                f"no node {device!r} in {', '.join(self._clusters.names)}",
                cure="join it to the cluster first; nodes there are: kubectl get nodes",
            )
        if len(found) > 1:
            raise _twice(device, found[0][0], found[1][0])
        return found[0]

    def add(self, cluster: Cluster, device: str, group: str, labels: Mapping[str, str]) -> None:
        """Put a node into a group.

        Raises:
            ConflictError: it is in another group, or another fleet's.
        """

        def change(node: Object) -> Object:
            there = node["metadata"].get("labels") or {}
            fleet = there.get(FLEET, self._settings.prefix)
            if fleet != self._settings.prefix:
                raise ConflictError(
                    f"node {device!r} is in the fleet {fleet!r}",
                    cure="retire it there first",
                    retryable=False,
                )
            if there.get(GROUP, group) != group:
                raise ConflictError(
                    f"node {device!r} was put into {there[GROUP]!r} at the same time",
                    cure="retire it, then enrol it again",
                    retryable=False,
                )
            changed = _labelled(node, dict(labels))
            changed["labels"].update({FLEET: self._settings.prefix, GROUP: group})
            return changed

        self._change(cluster, device, change)

    def label(self, device: str, labels: Mapping[str, str | None]) -> None:
        """Set labels of a device; None removes one."""
        found = self.find(device)
        if found is None:
            raise NotFoundError(f"device {device!r} is no more in the fleet")
        self._change(found[0], device, lambda node: _labelled(node, labels))

    def remove(self, device: str) -> None:
        """Take a node out of the fleet, and delete its report."""
        found = self.find(device)
        if found is None:
            return
        cluster = found[0]

        def change(node: Object) -> Object:
            own = f"{LABEL_DOMAIN}/"
            there = node["metadata"].get("labels") or {}
            gone = [key for key in there if key.startswith(own) or key in {FLEET, GROUP}]
            return {"labels": dict.fromkeys(gone), "annotations": {MORE_LABELS: None}}

        self._change(cluster, device, change)
        self.forget(cluster, device)

    def forget(self, cluster: Cluster, device: str) -> None:
        """Delete a device's report."""
        name = report_name(self._settings.prefix, device)
        cluster.delete("ConfigMap", name, self._settings.reports_namespace)

    def _change(self, cluster: Cluster, name: str, change: Any) -> None:  # noqa: ANN401 - a callable
        """Change a node's labels and annotations, whoever else does."""
        for _ in range(_TRIES):
            node = cluster.get("Node", name)
            if node is None:
                raise NotFoundError(f"node {name!r} is no more in {cluster.context}")
            metadata = {**change(node), "resourceVersion": node["metadata"]["resourceVersion"]}
            try:
                cluster.merge("Node", name, {"metadata": metadata})
            except ConflictError:
                continue
            return
        raise ConflictError(f"node {name!r} changed {_TRIES} times while it was labelled")


def _labelled(node: Object, labels: Mapping[str, str | None]) -> Object:
    """Of a merge patch the metadata that sets labels of a device."""
    plain: dict[str, str | None] = {}
    more = more_labels(node)
    for key, value in labels.items():
        more.pop(key, None)
        written = f"{LABEL_DOMAIN}/{key}"
        fits = _NAME.fullmatch(key) is not None
        if fits:
            plain[written] = None
        if value is None:
            continue
        if fits and (value == "" or _NAME.fullmatch(value)):
            plain[written] = value
        else:
            more[key] = value
    text = json.dumps(more, sort_keys=True, ensure_ascii=False) if more else None
    return {"labels": plain, "annotations": {MORE_LABELS: text}}


def _twice(device: str, one: Cluster, other: Cluster) -> ConfigurationError:
    return ConfigurationError(
        f"nodes named {device!r} are in {one.context} and in {other.context}",
        cure="a device's name is its node's: name the nodes apart, or give each cluster a "
        "deployer of its own in the profile",
    )
