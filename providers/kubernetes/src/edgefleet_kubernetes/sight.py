"""Devices as a fleet's clusters show them: node, report, pod, and why a pod doesn't run.

Rules kept here:

- A listing costs a cluster three calls, whatever the number of devices, and two more where a
  device's runtime doesn't run.
- A device is connected when its node is ready and its runtime's container runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.values import DeviceInfo
from edgefleet_kubernetes.names import FLEET, GROUP, PART, report_name, runtime_name
from edgefleet_kubernetes.reading import (
    evidence_of,
    is_ready,
    is_running,
    newest_pod,
    read_said,
)
from edgefleet_kubernetes.troubles import trouble_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgefleet_kubernetes.cluster import Cluster
    from edgefleet_kubernetes.clusters import Clusters
    from edgefleet_kubernetes.groups import DeviceGroups
    from edgefleet_kubernetes.reading import Member, Object
    from edgefleet_kubernetes.settings import KubernetesSettings


class Sight:
    """What clusters show of a fleet's devices.

    Args:
        clusters: of the fleet.
        groups: who is where.
        settings: of the fleet.
    """

    def __init__(
        self, clusters: Clusters, groups: DeviceGroups, settings: KubernetesSettings
    ) -> None:
        self._clusters = clusters
        self._groups = groups
        self._settings = settings

    def devices(self, group: str | None) -> Iterator[DeviceInfo]:
        """Devices of one group or all, by name."""
        found = self._groups.members(group)
        infos: dict[str, DeviceInfo] = {}
        for cluster in self._clusters:
            members = [member for where, member in found.values() if where is cluster]
            if members:
                infos.update(self._of_cluster(cluster, members, group))
        for name in sorted(infos):
            yield infos[name]

    def _of_cluster(
        self, cluster: Cluster, members: list[Member], group: str | None
    ) -> Iterator[tuple[str, DeviceInfo]]:
        settings = self._settings
        ours = {FLEET: settings.prefix, PART: "report"}
        reports = {
            one["metadata"]["name"]: one
            for one in cluster.list("ConfigMap", settings.reports_namespace, labels=ours)
        }
        pods = self._pods(cluster, group)
        stalled = any(not is_running(pods.get(member.name)) for member in members)
        events = list(self._warnings(cluster)) if stalled else []
        sets = {
            one["metadata"]["labels"][GROUP]: one
            for one in (self._groups.daemon_sets(cluster) if stalled else ())
        }
        for member in members:
            report = reports.get(report_name(settings.prefix, member.name))
            pod = pods.get(member.name)
            yield (
                member.name,
                self._info(member, report, pod, sets.get(member.group), events),
            )

    def device(self, name: str) -> DeviceInfo | None:
        """A device; None for none."""
        found = self._groups.find(name)
        if found is None:
            return None
        cluster, member = found
        report = cluster.get(
            "ConfigMap",
            report_name(self._settings.prefix, name),
            self._settings.reports_namespace,
        )
        daemon_set = self._groups.daemon_set(cluster, member.group)
        events = list(self._warnings(cluster))
        return self._info(member, report, self.pod(cluster, member), daemon_set, events)

    def pod(self, cluster: Cluster, member: Member) -> Object | None:
        """The pod of a device's runtime; None for none."""
        on_it = self._pods(cluster, member.group, node=member.name)
        # One that waits for a node's resources is on none yet.
        return (on_it or self._pods(cluster, member.group, node="")).get(member.name)

    def _pods(
        self, cluster: Cluster, group: str | None, *, node: str | None = None
    ) -> dict[str, Object]:
        """Pods of the runtime, by node."""
        labels = {FLEET: self._settings.prefix, PART: "runtime"}
        labels |= {} if group is None else {GROUP: group}
        fields = {} if node is None else {"spec.nodeName": node}
        by_node: dict[str, list[Object]] = {}
        for pod in cluster.list("Pod", self._settings.namespace, labels=labels, fields=fields):
            name = (pod.get("spec") or {}).get("nodeName") or _meant_for(pod)
            by_node.setdefault(name, []).append(pod)
        found = {name: newest_pod(pods) for name, pods in by_node.items()}
        return {name: pod for name, pod in found.items() if pod is not None}

    def _warnings(self, cluster: Cluster) -> Iterator[Object]:
        return cluster.list("Event", self._settings.namespace, fields={"type": "Warning"})

    def _info(
        self,
        member: Member,
        report: Object | None,
        pod: Object | None,
        daemon_set: Object | None,
        events: list[Object],
    ) -> DeviceInfo:
        about = {runtime_name(self._settings.prefix, member.group)}
        about |= set() if pod is None else {pod["metadata"]["name"]}
        told = _about(events, about)
        running = is_ready(member.node) and is_running(pod)
        trouble = None if running else trouble_of(member, pod, daemon_set, told)
        said = read_said(report)
        return DeviceInfo(
            name=member.name,
            group=member.group,
            labels=member.labels,
            connected=running,
            last_seen=said.came,
            report=said.report,
            evidence=evidence_of(member, pod, told, clusters=len(self._clusters)),
            blocked=None if trouble is None else trouble.what,
            cure=None if trouble is None else trouble.cure,
        )


def _about(events: Iterable[Object], names: set[str]) -> list[Object]:
    return [one for one in events if (one.get("involvedObject") or {}).get("name") in names]


def _meant_for(pod: Object) -> str:
    """The node that a DaemonSet's pod waits for, before the scheduler has put it there."""
    affinity = (pod.get("spec") or {}).get("affinity") or {}
    required = (affinity.get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field.get("key") == "metadata.name" and field.get("values"):
                return str(field["values"][0])
    return ""
