"""What a cluster says of a device: its node, its pod, its report, events. Pure.

A report is in the ConfigMap that has the node's name in its own; what stands in it names nobody.
When it was written is what the API server noted, not the device's clock.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.report import read_report
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_kubernetes.names import (
    DOMAIN,
    FLEET,
    GROUP,
    LABEL_DOMAIN,
    REPORT_KEY,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgefleet.protocol.report import Report

Object = dict[str, Any]

MORE_LABELS = f"{DOMAIN}/labels"
"""Annotation of a node: a JSON object of those labels that Kubernetes doesn't take as labels."""
MAX_SAID = 300  # characters of what somebody else says


class Member(NamedTuple):
    """A node of the fleet.

    Attributes:
        name: of the node, which is the device's.
        group: that it is in.
        labels: of the device.
        node: itself.
        context: of its cluster.
    """

    name: str
    group: str
    labels: dict[str, str]
    node: Object
    context: str


class Said(NamedTuple):
    """What a device reported; None for nothing, or nothing that makes sense."""

    report: Report | None = None
    came: datetime | None = None


def read_member(node: Object, prefix: str, context: str) -> Member | None:
    """A node as a device; None for one that isn't in the fleet."""
    labels = at(node, "metadata", "labels") or {}
    group = labels.get(GROUP)
    if labels.get(FLEET) != prefix or not group:
        return None
    own = f"{LABEL_DOMAIN}/"
    found = {key.removeprefix(own): value for key, value in labels.items() if key.startswith(own)}
    found.update(more_labels(node))
    return Member(node["metadata"]["name"], group, found, node, context)


def more_labels(node: Object) -> dict[str, str]:
    """Labels that lie in the node's annotation; none where somebody spoiled it."""
    try:
        written = (at(node, "metadata", "annotations") or {}).get(MORE_LABELS, "{}")
        found = decoder(dict[str, Any]).decode(written)
    except UNREADABLE:
        return {}
    return {key: str(value) for key, value in found.items()}


def read_said(config_map: Object | None) -> Said:
    """A device's report, from the ConfigMap that has its name."""
    if config_map is None:
        return Said()
    text = (config_map.get("data") or {}).get(REPORT_KEY)
    try:
        report = read_report(text.encode()) if isinstance(text, str) else None
    except EdgeFleetError:
        report = None
    return Said() if report is None else Said(report, written_at(config_map))


def written_at(found: Object) -> datetime | None:
    """When an object was last written, as the API server noted it."""
    metadata = found["metadata"]
    times = [one.get("time") for one in metadata.get("managedFields") or ()]
    times.append(metadata.get("creationTimestamp"))
    return max((at for text in times if (at := _time(text)) is not None), default=None)


def is_ready(node: Object) -> bool:
    """Whether the node's kubelet answers."""
    return (condition(node, "Ready") or {}).get("status") == "True"


def is_running(pod: Object | None) -> bool:
    """Whether a pod's container runs."""
    state = (container(pod) or {}).get("state") or {}
    return "running" in state


def newest_pod(pods: Iterable[Object]) -> Object | None:
    """Of a node's pods the one that counts: not on its way out, the newest."""
    alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
    return max(alive, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)


def evidence_of(
    member: Member, pod: Object | None, events: Iterable[Object], *, clusters: int = 1
) -> dict[str, str]:
    """What the cluster itself says of a device."""
    found: dict[str, str] = {}
    if clusters > 1:
        found["context"] = member.context
    ready = condition(member.node, "Ready") or {}
    version = at(member.node, "status", "nodeInfo", "kubeletVersion")
    words = "Ready" if is_ready(member.node) else said("NotReady", ready.get("message"))
    found["node"] = f"{words}, kubelet {version}" if version else words
    found["pod"] = _told_of(pod)
    warnings = [one for one in sorted(events, key=last_seen) if one.get("type") == "Warning"]
    if warnings:
        last = warnings[-1]
        found["last warning"] = said(last.get("reason"), last.get("message"))
    return found


def _told_of(pod: Object | None) -> str:
    """How the runtime's pod does."""
    if pod is None:
        return "none on this node"
    status = container(pod) or {}
    state = next(iter(status.get("state") or {}), "no container yet")
    restarts = status.get("restartCount") or 0
    parts = [f"{pod['metadata']['name']} {(pod.get('status') or {}).get('phase', 'Unknown')}"]
    parts += [f"container {state}"] if state != "running" else []
    parts += [f"restarted {restarts} times"] if restarts else []
    return ", ".join(parts)


def container(pod: Object | None) -> Object | None:
    """The status of a pod's only container; None before there is one."""
    statuses = at(pod, "status", "containerStatuses") or ()
    return next(iter(statuses), None)


def condition(found: Object, kind: str) -> Object | None:
    """A condition of an object's status, by its type."""
    conditions = at(found, "status", "conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), None)


def said(reason: object, message: object) -> str:
    """Reason and message of whatever Kubernetes says, in one line."""
    return ": ".join(str(word)[:MAX_SAID] for word in (reason, message) if word) or "no reason"


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def at(content: Any, *keys: str) -> Any:  # noqa: ANN401 - JSON
    """What lies below keys of nested objects; None where one is missing."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def last_seen(event: Object) -> str:
    """When an event came last, as text that sorts."""
    series = event.get("series") or {}
    times = (event.get("lastTimestamp"), series.get("lastObservedTime"), event.get("eventTime"))
    return max((str(one) for one in times if one), default="")
