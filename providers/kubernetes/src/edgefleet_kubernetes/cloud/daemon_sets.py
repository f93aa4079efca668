"""What the DaemonSet controller makes of nodes and pods: pure decisions.

As ``pkg/controller/daemon`` of kubernetes/kubernetes decides:

- One pod for each node that it fits; taints against scheduling keep new pods away, taints against
  running take pods along. What nodes suffer by themselves is tolerated.
- Old pods that aren't available are replaced at once. Of those that are, so many go that no more
  than ``maxUnavailable`` nodes are without one; new pods that don't become available count, so
  that a broken image stops the update there.
- A template that was there before takes its old revision again, under a higher number.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, NamedTuple

from edgefleet_kubernetes.cloud.api_objects import clone
from edgefleet_kubernetes.cloud.node_matching import (
    condition,
    fits_node,
    is_true,
    owner_of,
    share,
    untolerated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object

HASH_LABEL = "controller-revision-hash"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # rand.SafeEncodeString's: they spell no words
_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)


class Changes(NamedTuple):
    """What is to be done.

    Attributes:
        create: names of nodes that need a pod.
        delete: names of pods that go.
        failed: those of them that had failed.
    """

    create: tuple[str, ...]
    delete: tuple[str, ...]
    failed: tuple[str, ...] = ()


def template_hash(template: Object) -> str:
    """Ten letters for a pod template: equal templates have equal ones."""
    text = json.dumps(template, sort_keys=True).encode()
    number = int.from_bytes(hashlib.sha256(text).digest()[:8])
    letters = ""
    for _ in range(10):
        number, rest = divmod(number, len(_LETTERS))
        letters += _LETTERS[rest]
    return letters


def revision_data(daemon_set: Object) -> Object:
    """What a ControllerRevision keeps: a patch that brings the template back."""
    template = {**clone(daemon_set["spec"]["template"]), "$patch": "replace"}
    return {"spec": {"template": template}}


def revision_of(daemon_set: Object, number: int) -> Object:
    """A new ControllerRevision for a DaemonSet's template as it is."""
    meta, template = daemon_set["metadata"], daemon_set["spec"]["template"]
    digest = template_hash(template)
    labels = (template.get("metadata") or {}).get("labels") or {}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta['name']}-{digest}",
            "namespace": meta["namespace"],
            "labels": {**labels, HASH_LABEL: digest},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner_of(daemon_set)],
        },
        "data": revision_data(daemon_set),
        "revision": number,
    }


def pod_for(daemon_set: Object, node: str, digest: str) -> Object:
    """The pod that a DaemonSet has made for a node."""
    meta = daemon_set["metadata"]
    template = clone(daemon_set["spec"]["template"])
    spec = template["spec"]
    by_name = {"key": "metadata.name", "operator": "In", "values": [node]}
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {
        "nodeSelectorTerms": [{"matchFields": [by_name]}]
    }
    spec["tolerations"] = _tolerations(spec)
    own = template.get("metadata") or {}
    generation = str(meta.get("generation", 1))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            **({"annotations": own["annotations"]} if own.get("annotations") else {}),
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": {
                **(own.get("labels") or {}),
                HASH_LABEL: digest,
                "pod-template-generation": generation,
            },
            "ownerReferences": [owner_of(daemon_set)],
        },
        "spec": spec,
    }


def _tolerations(spec: Object) -> list[Object]:
    found = list(spec.get("tolerations") or ())
    for key, effect in _TOLERATED:
        one = {"key": key, "operator": "Exists", "effect": effect}
        if one not in found:
            found.append(one)
    return found


def should_run(daemon_set: Object, node: Object) -> tuple[bool, bool]:
    """Whether a pod is to be made on a node, and whether one that is there may stay."""
    template = daemon_set["spec"]["template"]["spec"]
    spec = {**template, "tolerations": _tolerations(template)}
    if not fits_node(spec, node):
        return False, False
    if untolerated(spec, node, ("NoSchedule", "NoExecute")) is None:
        return True, True
    return False, untolerated(spec, node, ("NoExecute",)) is None


def target_node(pod: Object) -> str:
    """The node that a DaemonSet's pod is on or for; empty where it has none."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    affinity = ((pod["spec"].get("affinity") or {}).get("nodeAffinity")) or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            return str(field["values"][0])
    return ""


def by_node(pods: Sequence[Object]) -> dict[str, list[Object]]:
    """A DaemonSet's pods by their node, oldest first."""
    found: dict[str, list[Object]] = {}
    for pod in sorted(pods, key=_age):
        found.setdefault(target_node(pod), []).append(pod)
    return found


def _age(pod: Object) -> tuple[bool, str, str]:
    meta = pod["metadata"]
    return not pod["spec"].get("nodeName"), meta.get("creationTimestamp") or "", meta["name"]


def available(pod: Object, min_ready_s: int, ready_for_s: float) -> bool:
    """Whether a pod has been ready for long enough."""
    return is_true(pod, "Ready") and ready_for_s >= min_ready_s


def manage(
    daemon_set: Object, nodes: Sequence[Object], pods: Mapping[str, Sequence[Object]]
) -> Changes:
    """Pods that nodes need, and pods that have nothing to do where they are."""
    create: list[str] = []
    delete: list[str] = []
    failed: list[str] = []
    for node in nodes:
        name = node["metadata"]["name"]
        runs, stays = should_run(daemon_set, node)
        found = pods.get(name, ())
        living = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
        if runs and not found:
            create.append(name)
        elif stays:
            ended = [pod for pod in living if _phase(pod) in ("Failed", "Succeeded")]
            failed += [pod["metadata"]["name"] for pod in ended]
            delete += [pod["metadata"]["name"] for pod in living if pod not in ended][1:]
        else:
            delete += [pod["metadata"]["name"] for pod in living]
    names = {node["metadata"]["name"] for node in nodes}
    for where, found in pods.items():
        if where not in names:
            delete += [
                pod["metadata"]["name"]
                for pod in found
                if not pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp")
            ]
    return Changes(tuple(create), (*delete, *failed), tuple(failed))


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def rolling_update(
    daemon_set: Object,
    nodes: Sequence[Object],
    pods: Mapping[str, Sequence[Object]],
    digest: str,
    is_available: Mapping[str, bool],
) -> tuple[str, ...]:
    """Names of the old pods that go now.

    Args:
        daemon_set: as it is wanted.
        nodes: of the cluster.
        pods: its pods by node.
        digest: of its template.
        is_available: by name of the pod.
    """
    strategy = daemon_set["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return ()
    desired = sum(should_run(daemon_set, node)[0] for node in nodes)
    limit = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1)
    most = max(1, share(limit, desired, up=True))
    missing, replaced, candidates = 0, [], []
    known = {node["metadata"]["name"]: node for node in nodes}
    for name, found in pods.items():
        if name not in known or not should_run(daemon_set, known[name])[0]:
            continue
        living = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
        if len(living) != 1:
            missing += 1
        elif living[0]["metadata"].get("labels", {}).get(HASH_LABEL) == digest:
            missing += not is_available[living[0]["metadata"]["name"]]
        elif is_available[living[0]["metadata"]["name"]]:
            candidates.append(living[0]["metadata"]["name"])
        else:
            replaced.append(living[0]["metadata"]["name"])
    missing += sum(
        1 for name, node in known.items() if name not in pods and should_run(daemon_set, node)[0]
    )
    room = max(0, most - missing)
    return (*replaced, *sorted(candidates)[:room])


def status_of(
    daemon_set: Object,
    nodes: Sequence[Object],
    pods: Mapping[str, Sequence[Object]],
    digest: str,
    is_available: Mapping[str, bool],
) -> Object:
    """The DaemonSet's status: how many nodes want a pod, have one, a ready one, a new one."""
    desired = current = misplaced = ready = updated = here = 0
    for node in nodes:
        found = pods.get(node["metadata"]["name"], ())
        if not should_run(daemon_set, node)[0]:
            misplaced += bool(found)
            continue
        desired += 1
        if not found:
            continue
        current += 1
        oldest = found[0]
        if is_true(oldest, "Ready"):
            ready += 1
            here += is_available[oldest["metadata"]["name"]]
        updated += oldest["metadata"].get("labels", {}).get(HASH_LABEL) == digest
    status: Object = {
        "desiredNumberScheduled": desired,
        "currentNumberScheduled": current,
        "numberMisscheduled": misplaced,
        "numberReady": ready,
        "updatedNumberScheduled": updated,
        "observedGeneration": daemon_set["metadata"].get("generation", 1),
    }
    if here:
        status["numberAvailable"] = here
    if desired - here:
        status["numberUnavailable"] = desired - here
    return status


def ready_since(pod: Object) -> str | None:
    """When a pod became ready; None while it isn't."""
    found = condition(pod, "Ready")
    if found is None or found["status"] != "True":
        return None
    when: str | None = found.get("lastTransitionTime")
    return when
