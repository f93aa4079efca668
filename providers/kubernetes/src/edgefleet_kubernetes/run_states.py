"""What a Job or TrainJob and its pods say of a run, in our words. Pure."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING

from edgefleet.interfaces.training import RunState, RunStatus
from edgefleet_kubernetes.job_request import PARAMS, SUBMITTED
from edgefleet_kubernetes.names import DOMAIN
from edgefleet_kubernetes.reading import at, condition, container, last_seen, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_kubernetes.reading import Object

CANCELLED = f"{DOMAIN}/cancelled"
"""Annotation of a run that somebody cancelled: when."""
_LACKING = re.compile(r"Insufficient ([\w/-]+(?:\.[\w/-]+)*)")
_OVER = "DeadlineExceeded"


def status_of(run: Object, pods: Sequence[Object] = (), events: Sequence[Object] = ()) -> RunStatus:
    """A run at one moment.

    Args:
        run: its Job or TrainJob.
        pods: of it, the oldest first; none where they weren't asked for.
        events: about the run and its pods.
    """
    metadata = run["metadata"]
    state = _state(run, pods)
    failed = condition(run, "Failed") or {}
    complete = condition(run, "Complete") or {}
    reason = None
    if state is RunState.FAILED:
        reason = _why_failed(run, failed, pods)
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


def _why_failed(run: Object, failed: Object, pods: Sequence[Object]) -> str:
    if failed.get("reason") == _OVER:
        return f"ended by Kubernetes: over its time, {at(run, 'spec', 'activeDeadlineSeconds')} s"
    for pod in reversed(pods):
        status = container(pod) or {}
        ended = at(status, "state", "terminated") or at(status, "lastState", "terminated")
        if ended is None and at(pod, "status", "reason"):
            return said(at(pod, "status", "reason"), at(pod, "status", "message"))
        if ended is None or ended.get("exitCode") == 0:
            continue
        if ended.get("reason") == "OOMKilled":
            return "out of memory: ask for more with memory_gib"
        return f"the script ended with status {ended.get('exitCode')}"
    return said(failed.get("reason"), failed.get("message"))


def _why_pending(pods: Sequence[Object], events: Sequence[Object]) -> str | None:
    for pod in reversed(pods):
        scheduled = condition(pod, "PodScheduled") or {}
        if scheduled.get("status") == "False":
            return _of_place(str(scheduled.get("message", "")))
        waiting = at(container(pod), "state", "waiting") or {}
        if waiting.get("reason") not in {None, "ContainerCreating", "PodInitializing"}:
            image = (container(pod) or {}).get("image", "")
            return f"{said(waiting.get('reason'), waiting.get('message'))} ({image})"
    warnings = [event for event in events if event.get("type") == "Warning"]
    if not warnings:
        return None
    last = max(warnings, key=last_seen)
    return said(last.get("reason"), last.get("message"))


def _of_place(message: str) -> str:
    """Why a pod has no node: what the scheduler says, with what is lacking in front."""
    lacking = sorted(set(_LACKING.findall(message)))
    if not lacking:
        return message
    return f"no node has {' or '.join(lacking)} to spare ({message})"


def _time(text: object) -> datetime | None:
    return datetime.fromisoformat(str(text)) if text else None
