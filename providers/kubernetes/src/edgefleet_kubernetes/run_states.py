"""What a Job or TrainJob and its pods say of a run, in our words. Pure."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

from edgefleet.interfaces.training import RunState, RunStatus
from edgefleet_kubernetes.job_request import PARAMS, SUBMITTED
from edgefleet_kubernetes.names import DOMAIN
from edgefleet_kubernetes.reading import at, condition, last_seen, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_kubernetes.reading import Object

CANCELLED = f"{DOMAIN}/cancelled"
"""Annotation of a run that somebody cancelled: when."""
_LACKING = re.compile(r"Insufficient ([\w/-]+(?:\.[\w/-]+)*)")
_REPLICATED = "jobset.sigs.k8s.io/replicatedjob-name"
_PROGRESS = frozenset({"SuccessfulCreate", "Scheduled", "Pulled", "Started"})
_MOST_WARNINGS = 3
_OVER = "DeadlineExceeded"


def status_of(run: Object, pods: Sequence[Object] = (), events: Sequence[Object] = ()) -> RunStatus:
    """A run at one moment.

    Args:
        run: its Job or TrainJob.
        pods: of it, the oldest first; none where they weren't asked for.
        events: about the run and its pods, those that are gone among them; none where they weren't
            asked for.
    """
    metadata = run["metadata"]
    state = _state(run, pods)
    failed = condition(run, "Failed") or {}
    complete = condition(run, "Complete") or {}
    reason = None
    if state is RunState.FAILED:
        reason = _why_failed(run, failed, pods, events)
    elif state is RunState.PENDING:
        reason = _why_pending(pods, events)
    elif state is RunState.CANCELLED:
        reason = f"cancelled at {_annotations(run)[CANCELLED]}"
    started = at(run, "status", "startTime") or _started(pods)
    ended = at(run, "status", "completionTime") or failed.get("lastTransitionTime")
    evidence = {"kind": run["kind"], "object": f"{metadata['namespace']}/{metadata['name']}"}
    if nodes := sorted({str(node) for pod in pods if (node := at(pod, "spec", "nodeName"))}):
        evidence["nodes"] = ", ".join(nodes)
    if state is RunState.CANCELLED:
        ended = _annotations(run)[CANCELLED]
    return RunStatus(
        id=metadata["name"],
        state=state,
        submitted=submitted(run),
        started=None if state is RunState.PENDING else _time(started),
        ended=_time(ended or complete.get("lastTransitionTime")) if state.ended else None,
        reason=reason,
        params=json.loads(_annotations(run).get(PARAMS, "{}")),
        evidence=evidence,
    )


def submitted(run: Object) -> datetime:
    """When a run was asked for."""
    told = _annotations(run).get(SUBMITTED) or run["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(told)


def _annotations(run: Object) -> dict[str, str]:
    return at(run, "metadata", "annotations") or {}


def _state(run: Object, pods: Sequence[Object]) -> RunState:
    if (condition(run, "Complete") or {}).get("status") == "True":
        return RunState.SUCCEEDED
    if (condition(run, "Failed") or {}).get("status") == "True":
        return RunState.FAILED
    if CANCELLED in _annotations(run):
        return RunState.CANCELLED
    if any(at(pod, "status", "phase") not in {None, "Pending"} for pod in pods):
        return RunState.RUNNING
    return RunState.PENDING


def _started(pods: Sequence[Object]) -> str | None:
    times = (at(pod, "status", "startTime") for pod in pods)
    return min((str(time) for time in times if time), default=None)


def is_over(run: Object) -> bool:
    """Whether a run was ended for its time; its pods are gone then."""
    return (condition(run, "Failed") or {}).get("reason") == _OVER


def _why_failed(
    run: Object, failed: Object, pods: Sequence[Object], events: Sequence[Object]
) -> str:
    if is_over(run):
        limit = at(run, "spec", "activeDeadlineSeconds")
        told = f"ended by Kubernetes: over its time, {limit} s"
        last = _warned([one for one in events if _is_about(one, "Pod")])
        return told if last is None else f"{told}; what was told of its pod last: {last}"
    for pod in reversed(pods):
        status = _own(pod)
        ended = at(status, "state", "terminated") or at(status, "lastState", "terminated")
        if ended is None and at(pod, "status", "reason"):
            return said(at(pod, "status", "reason"), at(pod, "status", "message"))
        if ended is None and (before := _why_not_begun(pod)) is not None:
            return before
        if ended is None or ended.get("exitCode") == 0:
            continue
        if ended.get("reason") == "OOMKilled":
            return "out of memory: ask for more with memory_gib"
        return f"{_what_ran(pod)} ended with status {ended.get('exitCode')}"
    return said(failed.get("reason"), failed.get("message"))


def _own(pod: Object) -> Object:
    """The status of the container that trains: the pod's first, whatever else was put into it."""
    name = next((one["name"] for one in at(pod, "spec", "containers") or ()), None)
    statuses = at(pod, "status", "containerStatuses") or ()
    return next((status for status in statuses if status.get("name") == name), {})


def _what_ran(pod: Object) -> str:
    """The script, or what a TrainJob's runtime has fetch data and models before, in own pods."""
    job = (at(pod, "metadata", "labels") or {}).get(_REPLICATED, "")
    return f"the training runtime's {job}" if job.endswith("-initializer") else "the script"


def _init(pod: Object) -> Sequence[Object]:
    """The statuses of what a pod runs before, which a TrainJob's runtime or a webhook put there."""
    return at(pod, "status", "initContainerStatuses") or ()


def _why_not_begun(pod: Object) -> str | None:
    """Which init container failed, so that the script never began; None for none."""
    for status in _init(pod):
        ended = at(status, "state", "terminated") or at(status, "lastState", "terminated") or {}
        if ended.get("exitCode"):
            name, where = status.get("name"), pod["metadata"]
            return (
                f"init container {name} ended with status {ended['exitCode']} before the script "
                f"began: kubectl logs {where['name']} -c {name} -n {where['namespace']}"
            )
    return None


def _why_pending(pods: Sequence[Object], events: Sequence[Object]) -> str | None:
    for pod in reversed(pods):
        scheduled = condition(pod, "PodScheduled") or {}
        if scheduled.get("status") == "False":
            return _of_place(str(scheduled.get("message", "")))
        for status in (*_init(pod), _own(pod)):
            waiting = at(status, "state", "waiting") or {}
            if waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
                told = said(waiting.get("reason"), waiting.get("message"))
                return f"{told} ({status.get('image', '')})"
    return _warned(events)


def _warned(events: Sequence[Object]) -> str | None:
    """What warnings say, the newest last; None where there are none, or it went on since.

    Several, as the newest may be a word alone (``ErrImagePull``) and the one before its sentence.
    """
    found: dict[str, None] = {}
    for one in sorted(events, key=lambda one: (last_seen(one), _is_warning(one))):
        if _is_warning(one):
            text = said(one.get("reason"), one.get("message"))
            if one.get("reason") == "FailedScheduling":
                text = _of_place(str(one.get("message", "")))
            found.pop(text, None)
            found[text] = None
        elif one.get("reason") in _PROGRESS:
            found.clear()
    return "; ".join([*found][-_MOST_WARNINGS:]) or None


def _is_warning(event: Object) -> bool:
    return event.get("type") == "Warning"


def _is_about(event: Object, kind: str) -> bool:
    found: object = at(event, "involvedObject", "kind")
    return found == kind


def _of_place(message: str) -> str:
    """Why a pod has no node: what the scheduler says, with what is lacking in front."""
    lacking = sorted(set(_LACKING.findall(message)))
    if not lacking:
        return message
    return f"no node has {' or '.join(lacking)} to spare ({message})"


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(str(text)) if text else None
