"""What the Job controller makes of a Job and its pods: pure decisions.

As ``pkg/controller/job`` of kubernetes/kubernetes decides. A pod's end counts once: it is counted
in the Job's status and then loses its finalizer, so that no count is lost with a pod.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, NamedTuple

from edgefleet_kubernetes.cloud.api_objects import clone
from edgefleet_kubernetes.cloud.node_matching import condition, is_true, owner_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
JOB_NAME = "batch.kubernetes.io/job-name"
CONTROLLER = "batch.kubernetes.io/controller-uid"
BACKOFF_S, LONGEST_BACKOFF_S = 10.0, 600.0
_ENDED = ("Succeeded", "Failed")


class Verdict(NamedTuple):
    """Why a Job is over: a reason and a message; done when it reached its goal."""

    done: bool
    reason: str
    message: str


class Plan(NamedTuple):
    """What is to be done.

    Attributes:
        status: of the Job, without conditions.
        counted: names of pods whose end is in that status; their finalizer goes.
        create: an index for each new pod, None where pods have none.
        delete: names of pods that go.
        verdict: when the Job is over.
        failures: pods that have failed by now, for the pause before the next.
    """

    status: Object
    counted: tuple[str, ...]
    create: tuple[int | None, ...]
    delete: tuple[str, ...]
    verdict: Verdict | None
    failures: int


def finished(job: Object) -> bool:
    """Whether a Job has come to its end, one way or the other."""
    return is_true(job, "Complete") or is_true(job, "Failed")


def moment(text: str) -> dt.datetime:
    """A time as the API writes it."""
    return dt.datetime.fromisoformat(text)


def index_of(pod: Object) -> int | None:
    """A pod's completion index; None where it has none."""
    found = (pod["metadata"].get("annotations") or {}).get(INDEX)
    return None if found is None else int(found)


def ranges(numbers: set[int]) -> str:
    """Numbers as ``completedIndexes`` has them: ``1,3-5``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def numbers(text: str) -> set[int]:
    """The numbers that `ranges` wrote."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def decide(job: Object, pods: Sequence[Object], now: dt.datetime) -> Plan:
    """What is to be done with a Job that isn't finished.

    Args:
        job: with its status; ``startTime`` is set where it isn't suspended.
        pods: of the Job, with those that go.
        now: with a timezone.
    """
    spec = job["spec"]
    count = _Count(job, pods)
    active = [pod for pod in pods if _is_active(pod)]
    going = [pod for pod in pods if pod["metadata"].get("deletionTimestamp") and not _ended(pod)]
    verdict = _verdict(job, pods, count, now)
    create: list[int | None] = []
    delete: list[Object] = []
    if verdict is not None or spec.get("suspend"):
        delete = active
    else:
        create, delete = _balance(spec, active, going, count)
    status: Object = {
        "startTime": (job.get("status") or {}).get("startTime"),
        "active": len(active),
        "ready": sum(is_true(pod, "Ready") for pod in active),
        "terminating": len(going),
        "succeeded": count.succeeded,
        "failed": count.failed,
        "uncountedTerminatedPods": {},
    }
    if count.indexed:
        status["completedIndexes"] = ranges(count.completed)
    if status["startTime"] is None:
        del status["startTime"]
    names = tuple(pod["metadata"]["name"] for pod in delete)
    return Plan(status, tuple(count.names), tuple(create), names, verdict, count.failures)


class _Count:
    """Ends of pods: those in the status, and those that are new."""

    def __init__(self, job: Object, pods: Sequence[Object]) -> None:
        status = job.get("status") or {}
        self.indexed = job["spec"].get("completionMode") == "Indexed"
        self.completed = numbers(status.get("completedIndexes") or "")
        self.succeeded = int(status.get("succeeded") or 0)
        self.failed = int(status.get("failed") or 0)
        self.names: list[str] = []
        self.failing: tuple[Object, str] | None = None
        suspended = bool(job["spec"].get("suspend"))
        for pod in pods:
            if FINALIZER in (pod["metadata"].get("finalizers") or ()):
                self._add(job, pod, suspended=suspended)
        if self.indexed:
            self.succeeded = len(self.completed)
        self.failures = self.failed

    def _add(self, job: Object, pod: Object, *, suspended: bool) -> None:
        phase = _phase(pod)
        gone = bool(pod["metadata"].get("deletionTimestamp"))
        if phase not in _ENDED and not (gone and not pod["spec"].get("nodeName")):
            return
        self.names.append(pod["metadata"]["name"])
        if phase == "Succeeded":
            index = index_of(pod)
            if index is not None:
                self.completed.add(index)
            else:
                self.succeeded += 1
            return
        if gone and suspended:
            return
        action, why = _policy(job, pod)
        if action == "FailJob" and self.failing is None:
            self.failing = (pod, why)
        if action != "Ignore":
            self.failed += 1


def _policy(job: Object, pod: Object) -> tuple[str, str]:
    """What the Job's ``podFailurePolicy`` says of a failed pod: an action, and why."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        for wanted in rule.get("onPodConditions") or ():
            found = condition(pod, wanted["type"])
            if found is not None and found["status"] == wanted.get("status", "True"):
                why = f"has condition {wanted['type']} matching {rule['action']} rule at index"
                return rule["action"], f"{why} {number}"
        codes = rule.get("onExitCodes")
        if codes is None:
            continue
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            code = (status["state"].get("terminated") or {}).get("exitCode", 0)
            named = codes.get("containerName") in (None, status["name"])
            if named and code and (code in codes["values"]) == (codes["operator"] == "In"):
                why = f"failed with exit code {code} matching {rule['action']} rule at index"
                return rule["action"], f"{status['name']}\n{why} {number}"
    return "Count", ""


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _ended(pod: Object) -> bool:
    return _phase(pod) in _ENDED


def _is_active(pod: Object) -> bool:
    return not _ended(pod) and not pod["metadata"].get("deletionTimestamp")


def _verdict(
    job: Object, pods: Sequence[Object], count: _Count, now: dt.datetime
) -> Verdict | None:
    spec, status = job["spec"], job.get("status") or {}
    for kind in ("FailureTarget", "SuccessCriteriaMet"):
        found = condition(job, kind)
        if found is not None and found["status"] == "True":
            return Verdict(kind == "SuccessCriteriaMet", found["reason"], found["message"])
    if count.failing is not None:
        pod, why = count.failing
        where = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        container, _, rest = why.rpartition("\n")
        subject = f"Container {container} for pod {where}" if container else f"Pod {where}"
        return Verdict(False, "PodFailurePolicy", f"{subject} {rest}")
    limit = spec.get("backoffLimit", 6)
    if count.failed > limit or _restarts_exceed(job, pods, limit):
        return Verdict(False, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline, began = spec.get("activeDeadlineSeconds"), status.get("startTime")
    limited = deadline is not None and not spec.get("suspend")
    if limited and began and (now - moment(began)).total_seconds() >= deadline:
        message = "Job was active longer than specified deadline"
        return Verdict(False, "DeadlineExceeded", message)
    wanted = spec.get("completions")
    active = any(_is_active(pod) for pod in pods)
    done = count.succeeded >= wanted if wanted is not None else count.succeeded and not active
    if done and not spec.get("suspend"):
        message = "Reached expected number of succeeded pods"
        return Verdict(True, "CompletionsReached", message)
    return None


def _restarts_exceed(job: Object, pods: Sequence[Object], limit: int) -> bool:
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        status.get("restartCount", 0)
        for pod in pods
        if _phase(pod) in ("Running", "Pending")
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
    )
    return bool(restarts > 0 if limit == 0 else restarts >= limit)


def _balance(
    spec: Object, active: Sequence[Object], going: Sequence[Object], count: _Count
) -> tuple[list[int | None], list[Object]]:
    parallel = spec.get("parallelism", 1)
    wanted = spec.get("completions")
    if wanted is None:  # a work queue: nobody starts once one has ended well
        target = len(active) if count.succeeded else parallel
    else:
        target = min(parallel, wanted - count.succeeded)
    surplus = len(active) - target
    if surplus > 0:
        return [], list(active[-surplus:])
    # podReplacementPolicy Failed waits for those that go; TerminatingOrFailed, the default, doesn't
    waiting = len(going) if spec.get("podReplacementPolicy") == "Failed" else 0
    missing = max(0, target - len(active) - waiting)
    if not count.indexed:
        return [None] * missing, []
    taken = count.completed | {index_of(pod) for pod in active}
    free = [index for index in range(wanted or 0) if index not in taken]
    return list(free[:missing]), []


def pod_for(job: Object, index: int | None) -> Object:
    """A pod that a Job has made."""
    meta = job["metadata"]
    template = clone(job["spec"]["template"])
    own = template.get("metadata") or {}
    labels = {
        **(own.get("labels") or {}),
        JOB_NAME: meta["name"],
        "job-name": meta["name"],
        CONTROLLER: meta["uid"],
        "controller-uid": meta["uid"],
    }
    annotations = dict(own.get("annotations") or {})
    spec = template["spec"]
    prefix = f"{meta['name']}-"
    if index is not None:
        labels[INDEX] = annotations[INDEX] = str(index)
        prefix += f"{index}-"
        spec.setdefault("hostname", f"{meta['name']}-{index}")
        path = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
        variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": path}
        for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
            found = container.setdefault("env", [])
            if not any(one["name"] == variable["name"] for one in found):
                found.append(clone(variable))
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": prefix,
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": annotations,
            "finalizers": [FINALIZER],
            "ownerReferences": [owner_of(job)],
        },
        "spec": spec,
    }


def pause_s(failures: int, first_s: float) -> float:
    """How long a Job waits after so many failures before it makes another pod."""
    if failures <= 0:
        return 0.0
    longest_s = first_s * LONGEST_BACKOFF_S / BACKOFF_S
    return min(first_s * 2.0 ** (failures - 1), longest_s)
