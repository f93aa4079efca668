"""Carries out what `jobs` decides: pods, status, conditions and Events of Jobs."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud import jobs
from edgefleet_kubernetes.cloud.api_objects import now
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.jobs import FINALIZER
from edgefleet_kubernetes.cloud.node_client import age_s, with_condition
from edgefleet_kubernetes.cloud.node_matching import condition, is_true, owned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_client import Client

COMPONENT = "job-controller"


class JobController:
    """The controller.

    Args:
        client: of the API server.
        backoff_s: the first pause after a failed pod.
        clock: monotonic seconds.
    """

    def __init__(
        self, client: Client, *, backoff_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._backoff_s, self._clock = client, backoff_s, clock
        self._due: dict[str, tuple[int, float]] = {}

    def reconcile(self) -> None:
        """Look at every Job."""
        found = self._client.list("Job")
        all_pods = self._client.list("Pod")
        for job in found:
            if job["metadata"].get("deletionTimestamp"):
                continue
            pods = [pod for pod in all_pods if owned(pod, job)]
            if jobs.finished(job):
                self._after(job, pods)
            else:
                self._reconcile(job, pods)
        for pod in all_pods:
            self._orphan(pod, found)

    def _reconcile(self, job: Object, pods: Sequence[Object]) -> None:
        job = self._began(job) or job
        plan = jobs.decide(job, pods, dt.datetime.now(dt.UTC))
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        for name in plan.delete:
            self._delete(job, by_name[name])
        if self._may_create(job, plan):
            for index in plan.create:
                if not self._create(job, index):
                    break
        ended = plan.verdict is not None and not plan.delete and not plan.status["active"]
        self._write(job, plan, ended=ended and not plan.status["terminating"])
        for name in plan.counted:
            self._release(by_name[name])

    def _began(self, job: Object) -> Object | None:
        """Note the beginning, a pause, or that it goes on."""
        suspended = bool(job["spec"].get("suspend"))
        status = job.get("status") or {}
        before = condition(job, "Suspended")
        paused = before is not None and before["status"] == "True"
        if suspended == paused and (suspended or status.get("startTime")):
            return None

        def edit(found: Object) -> None:
            own = found.setdefault("status", {})
            if suspended:
                own.pop("startTime", None)
                with_condition(own, _condition("Suspended", "JobSuspended", "Job suspended"))
            else:
                own["startTime"] = now()
                if paused:
                    one = _condition("Suspended", "JobResumed", "Job resumed", status="False")
                    with_condition(own, one)

        if suspended:
            self._client.event(job, "Suspended", "Job suspended")
        elif paused:
            self._client.event(job, "Resumed", "Job resumed")
        return self._client.change(job, edit, subresource="status")

    def _may_create(self, job: Object, plan: jobs.Plan) -> bool:
        """Whether the pause after the last failure is over."""
        if not plan.create:
            return False
        uid, clock = job["metadata"]["uid"], self._clock()
        seen, due = self._due.get(uid, (0, clock))
        if plan.failures > seen:
            due = clock + jobs.pause_s(plan.failures, self._backoff_s)
            self._due[uid] = (plan.failures, due)
        return clock >= due

    def _create(self, job: Object, index: int | None) -> bool:
        try:
            pod = self._client.create(jobs.pod_for(job, index))
        except Refused as refused:
            message = f"Error creating: {refused.message}"
            self._client.event(job, "FailedCreate", message, warning=True)
            return False
        self._client.event(job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
        return True

    def _delete(self, job: Object, pod: Object) -> None:
        self._client.delete(pod)
        self._client.event(job, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")

    def _write(self, job: Object, plan: jobs.Plan, *, ended: bool) -> None:
        verdict = plan.verdict

        def edit(found: Object) -> None:
            status = found.setdefault("status", {})
            status.pop("completedIndexes", None)
            status.update({key: value for key, value in plan.status.items() if value != ""})
            if verdict is None:
                return
            first = "SuccessCriteriaMet" if verdict.done else "FailureTarget"
            with_condition(status, _condition(first, verdict.reason, verdict.message))
            if ended:
                last = "Complete" if verdict.done else "Failed"
                with_condition(status, _condition(last, verdict.reason, verdict.message))
                if verdict.done:
                    status["completionTime"] = now()

        self._client.change(job, edit, subresource="status")
        if verdict is not None and ended:
            reason = "Completed" if verdict.done else verdict.reason
            message = "Job completed" if verdict.done else verdict.message
            self._client.event(job, reason, message, warning=not verdict.done)

    def _release(self, pod: Object) -> None:
        """Let a pod go whose end was counted."""

        def edit(found: Object) -> None:
            finalizers = found["metadata"].get("finalizers") or []
            found["metadata"]["finalizers"] = [one for one in finalizers if one != FINALIZER]

        self._client.change(pod, edit)

    def _after(self, job: Object, pods: Sequence[Object]) -> None:
        """What is left to do for a Job that is finished: let pods go, and itself in time."""
        for pod in pods:
            if FINALIZER in (pod["metadata"].get("finalizers") or ()):
                self._release(pod)
        self._due.pop(job["metadata"]["uid"], None)
        wait = job["spec"].get("ttlSecondsAfterFinished")
        end = next(one for one in ("Complete", "Failed") if is_true(job, one))
        found = condition(job, end)
        if wait is None or found is None:
            return
        if age_s(found["lastTransitionTime"]) >= wait:
            self._client.delete(job)

    def _orphan(self, pod: Object, found: Sequence[Object]) -> None:
        """Let a pod go whose Job is gone."""
        if FINALIZER not in (pod["metadata"].get("finalizers") or ()):
            return
        if not any(
            owned(pod, job) and not job["metadata"].get("deletionTimestamp") for job in found
        ):
            self._release(pod)


def _condition(name: str, reason: str, message: str, *, status: str = "True") -> Object:
    return {
        "type": name,
        "status": status,
        "reason": reason,
        "message": message,
        "lastProbeTime": now(),
    }
