"""Why a device's runtime doesn't run, and what to do about it. Pure.

Read from node, pod, DaemonSet and Events, in the words of Kubernetes, with a cure of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet_kubernetes.reading import (
    MAX_SAID,
    Object,
    at,
    condition,
    container,
    is_ready,
    last_seen,
    said,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgefleet_kubernetes.reading import Member


class Trouble(NamedTuple):
    """Why a runtime doesn't run, and what to do about it."""

    what: str
    cure: str


def trouble_of(
    member: Member, pod: Object | None, daemon_set: Object | None, events: Iterable[Object]
) -> Trouble | None:
    """Why a node's runtime doesn't run; None where it does, or where nothing tells.

    Args:
        member: the node.
        pod: of the runtime, on it.
        daemon_set: of its group.
        events: about pod and DaemonSet.
    """
    if not is_ready(member.node):
        return _of_node(member.node)
    if daemon_set is None:
        return Trouble(
            f"group {member.group} has no DaemonSet in this cluster",
            f"edgefleet install --group {member.group}",
        )
    told = sorted(events, key=last_seen)
    if pod is None:
        return _of_no_pod(member, daemon_set, told)
    return _of_pod(pod, told)


def _of_node(node: Object) -> Trouble:
    ready = condition(node, "Ready") or {}
    since = ready.get("lastTransitionTime", "an unknown time")
    why = said(ready.get("reason"), ready.get("message"))
    return Trouble(
        f"node NotReady since {since}: {why}",
        "see the node's power, network and kubelet; it converges by itself when it is back",
    )


def _of_no_pod(member: Member, daemon_set: Object, events: list[Object]) -> Trouble | None:
    name = daemon_set["metadata"]["name"]
    failed = [event for event in events if event.get("reason") == "FailedCreate"]
    if failed:
        message = str(failed[-1].get("message", ""))
        return Trouble(f"no pod is made: {message[:MAX_SAID]}", _cure_of_refusal(message))
    taints = at(member.node, "spec", "taints") or ()
    keeping = [one for one in taints if one.get("effect") in {"NoSchedule", "NoExecute"}]
    tolerated = at(daemon_set, "spec", "template", "spec", "tolerations") or ()
    for taint in keeping:
        if not any(_tolerates(one, taint) for one in tolerated):
            written = f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
            return Trouble(
                f"node has the taint {written}",
                "name it in `tolerations` of the profile, then: edgefleet install; or take it away",
            )
    return Trouble(
        f"no pod of DaemonSet {name} on this node yet",
        f"wait a moment; then look at: kubectl describe daemonset {name}",
    )


def _cure_of_refusal(message: str) -> str:
    if "exceeded quota" in message or "must specify" in message:
        return "raise the namespace's ResourceQuota, or lower `runtime_requests` in the profile"
    if "PodSecurity" in message:
        return (
            "the namespace is held to another pod security standard: let `edgefleet install` make "
            'it, or set `store = "claim"`'
        )
    return "mend what the message names"


def _of_pod(pod: Object, events: list[Object]) -> Trouble | None:
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        why = said(status.get("reason"), status.get("message"))
        cure = "free what the node lacks; a new pod comes by itself"
        return Trouble(f"the pod failed: {why}", cure)
    scheduled = condition(pod, "PodScheduled") or {}
    if scheduled.get("status") == "False":
        return Trouble(
            f"the pod has no place: {said(scheduled.get('reason'), scheduled.get('message'))}",
            "free the resources that the message names, or ask for less in the profile",
        )
    found = container(pod) or {}
    waiting = (found.get("state") or {}).get("waiting")
    if waiting is not None:
        return _of_waiting(found, waiting, events)
    ended = (found.get("state") or {}).get("terminated")
    if ended is not None:
        return Trouble(f"the runtime ended: {_of_end(ended)}", _CURE_OF_CRASH)
    if "running" in (found.get("state") or {}):
        return None
    return _of_mount(events)


_CURE_OF_CRASH = "mend what the runtime said last; kubelet starts it again by itself"
_CURE_OF_PULL = (
    "push the image that `runtime_image` names, let nodes read it (`pull_secret`), or install "
    "another"
)
_CURES = {
    "ErrImagePull": _CURE_OF_PULL,
    "ImagePullBackOff": _CURE_OF_PULL,
    "InvalidImageName": "put `runtime_image` in the profile right, then: edgefleet install",
    "ErrImageNeverPull": "put the image on the node, or let kubelet pull it",
    "CreateContainerConfigError": "make the ConfigMap or Secret that the message names",
}


def _of_waiting(status: Object, waiting: Object, events: list[Object]) -> Trouble | None:
    reason = str(waiting.get("reason", ""))
    if reason in _CURES:
        image = status.get("image", "")
        pulled = "Image" in reason
        what = f"{reason} of {image}" if pulled else reason
        why = _why_pulling(waiting, events) if pulled else str(waiting.get("message", ""))
        return Trouble(f"{what}: {why[:MAX_SAID]}", _CURES[reason])
    if reason == "CrashLoopBackOff":
        ended = at(status, "lastState", "terminated") or {}
        count = status.get("restartCount", 0)
        what = f"the runtime ends again and again ({count} restarts): {_of_end(ended)}"
        return Trouble(what, _CURE_OF_CRASH)
    return _of_mount(events)


def _why_pulling(waiting: Object, events: list[Object]) -> str:
    """What the registry said: of a back-off, an earlier event tells."""
    told = [
        str(event.get("message", ""))
        for event in events
        if event.get("reason") == "Failed" and "pull" in str(event.get("message", "")).lower()
    ]
    detailed = [message for message in told if "Error: " not in message]
    return (detailed or told or [str(waiting.get("message", ""))])[-1]


def _of_mount(events: list[Object]) -> Trouble | None:
    failed = [event for event in events if event.get("reason") == "FailedMount"]
    if not failed:
        return None
    message = str(failed[-1].get("message", ""))
    cure = "make what the message names"
    if "hostPath" in message or "is not a directory" in message:
        cure = "on the node: install -d -o 10001 -g 10001 -m 0750 FOLDER; kubelet tries again"
    elif "secret" in message:
        cure = "edgefleet install makes the serving token's; `pull_secret` names one of yours"
    return Trouble(f"a volume can't be mounted: {message[:MAX_SAID]}", cure)


def _of_end(ended: Mapping[str, Any]) -> str:
    lines = str(ended.get("message", "")).strip().splitlines()
    words = [f"{ended.get('reason', 'Error')}, exit code {ended.get('exitCode', 'unknown')}"]
    # The last lines of a log end with what it is about.
    words += [" ".join(lines)[-MAX_SAID:]] if lines else []
    return ": ".join(words)


def _tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if not toleration.get("key"):
        return toleration.get("operator") == "Exists"
    if toleration["key"] != taint.get("key"):
        return False
    exists = toleration.get("operator") == "Exists"
    return exists or toleration.get("value", "") == taint.get("value", "")
