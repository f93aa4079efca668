"""Greengrass's deployments: revisions of a target's components, and how far each device is.

Rules kept here, each in ``mock_rules.md``:

- A target has one deployment that counts, the latest; it replaces the component list of the one
  before, which is INACTIVE from then on.
- A deployment to a group goes on for devices that join later.
- How it reaches its devices is `rollout`'s affair.
- Cancelling reaches only devices that haven't begun.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import uuid
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.components import paged
from edgefleet_aws.cloud.rest_json import invalid
from edgefleet_aws.cloud.rollout import ENDED, Crowd, Execution, Rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_JOB_STATUS = {"ACTIVE": "IN_PROGRESS", "COMPLETED": "COMPLETED"}


_COUNTED = {
    "QUEUED": "numberOfQueuedThings",
    "IN_PROGRESS": "numberOfInProgressThings",
    "SUCCEEDED": "numberOfSucceededThings",
    "FAILED": "numberOfFailedThings",
    "REJECTED": "numberOfRejectedThings",
    "TIMED_OUT": "numberOfTimedOutThings",
    "CANCELED": "numberOfCanceledThings",
}


class Things(Protocol):
    """What IoT Core knows of things and groups."""

    def exists(self, arn: str) -> bool:
        """Whether there is a thing or a group of that ARN."""

    def targets_of(self, thing: str) -> tuple[str, ...]:
        """ARNs by which a thing is meant: its own, and of the groups that it is in."""

    def crowd_of(self, arn: str) -> Crowd:
        """The devices of a group that are there as a number only."""


class Deployment:
    """A revision of a target's components."""

    def __init__(
        self, request: Mapping[str, Any], revision: int, created: dt.datetime, crowd: Crowd
    ) -> None:
        self.id = str(uuid.uuid4())
        self.job = str(uuid.uuid4())
        self.request = dict(request)
        self.target: str = request["targetArn"]
        self.revision = revision
        self.created = created
        self.status = "ACTIVE"
        config = request.get("iotJobConfiguration") or {}
        self.rollout = Rollout(config, created, crowd)

    def kept(self) -> dict[str, Any]:
        """What `restored` makes it from again."""
        return {
            "id": self.id,
            "job": self.job,
            "request": self.request,
            "revision": self.revision,
            "created": self.created.isoformat(),
            "status": self.status,
            "rollout": self.rollout.kept(),
        }

    @classmethod
    def restored(cls, kept: Mapping[str, Any]) -> Deployment:
        """The deployment that `kept` told of."""
        created = dt.datetime.fromisoformat(kept["created"])
        one = cls(kept["request"], kept["revision"], created, Crowd())
        one.id, one.job, one.status = kept["id"], kept["job"], kept["status"]
        one.rollout.restore(kept["rollout"])
        return one

    @property
    def name(self) -> str:
        """Its name, or what stands for one."""
        return str(self.request.get("deploymentName") or f"Deployment for {self.target}")

    @property
    def components(self) -> Mapping[str, Any]:
        """Component -> version, configuration update, run-with."""
        found: Mapping[str, Any] = self.request.get("components") or {}
        return found

    def at(self, now: dt.datetime) -> Deployment:
        """Itself as it is by now."""
        if self.status == "ACTIVE":
            self.rollout.advance(now)
        if self.status == "ACTIVE" and self.rollout.stopped:
            self.status = "CANCELED"
        return self


class Deployments:
    """All deployments of an account in a region.

    Args:
        scope: ``arn:aws:iot:REGION:ACCOUNT``.
        things: what IoT Core knows.
        clock: gives the time.
        changed: called when devices may have something to do.
    """

    def __init__(
        self,
        scope: str,
        things: Things,
        clock: Callable[[], dt.datetime],
        changed: Callable[[], None],
    ) -> None:
        self._scope = scope
        self._things = things
        self._clock = clock
        self._changed = changed
        self._found: dict[str, Deployment] = {}
        self._latest: dict[str, Deployment] = {}
        self._tokens: dict[str, str] = {}
        self._revising = threading.Lock()

    def clear(self) -> None:
        """Forget them all."""
        for kept in (self._found, self._latest, self._tokens):
            kept.clear()

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Every deployment, oldest first, with each device's status."""
        return {
            "deployments": [one.kept() for one in self._found.values()],
            "latest": [one.id for one in self._latest.values()],
            "tokens": self._tokens,
        }

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have these deployments; devices know them by their ids."""
        for told in kept["deployments"]:
            self._found[told["id"]] = Deployment.restored(told)
        for name in kept["latest"]:
            self._latest[self._found[name].target] = self._found[name]
        self._tokens.update(kept["tokens"])

    def operations(self) -> dict[str, Any]:
        """The service's operations on deployments."""
        return {
            "CreateDeployment": self._create,
            "GetDeployment": self._get,
            "ListDeployments": self._list,
            "CancelDeployment": self._cancel,
            "DeleteDeployment": self._delete,
            "ListEffectiveDeployments": self._effective,
        }

    def job_operations(self) -> dict[str, Any]:
        """AWS IoT's operations on the jobs behind deployments."""
        return {"DescribeJob": self._describe_job}

    # -- what devices ask

    def wanted(self, thing: str) -> list[Deployment]:
        """The deployments that a device has to carry out now, one a target, oldest first."""
        now = self._clock()
        found = []
        for target in self._things.targets_of(thing):
            deployment = self._latest.get(target)
            if deployment is None:
                continue
            rollout = deployment.rollout
            if thing not in rollout.executions:
                if deployment.status != "ACTIVE":
                    continue
                rollout.executions[thing] = Execution("QUEUED", now)
            if deployment.at(now).rollout.hears(thing):
                found.append(deployment)
        return sorted(found, key=lambda one: one.created)

    def report(self, thing: str, deployment: Deployment, status: str, reason: str = "") -> None:
        """Take in what a device says of a deployment."""
        now = self._clock()
        deployment.at(now).rollout.report(thing, status, now, reason)
        deployment.at(now)
        single = ":thing/" in deployment.target
        if single and deployment.status == "ACTIVE" and status in ENDED:
            deployment.status = "COMPLETED" if status == "SUCCEEDED" else "FAILED"

    # -- operations

    def _create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        target = request["targetArn"]
        if not self._things.exists(target):
            raise Fault(
                "ResourceNotFoundException",
                f"Target {target} doesn't exist",
                404,
                resourceId=target,
                resourceType="ThingGroup" if ":thinggroup/" in target else "Thing",
            )
        for name, component in (request.get("components") or {}).items():
            _check_update(name, component.get("configurationUpdate") or {})
        token = request.get("clientToken")
        if token in self._tokens:
            return self._created(self._found[self._tokens[token]])
        with self._revising:
            before = self._latest.get(target)
            revision = 1 if before is None else before.revision + 1
            now = self._clock()
            deployment = Deployment(request, revision, now, self._things.crowd_of(target))
            if before is not None:
                before.at(now).rollout.stop("a newer deployment took its place", now)
                before.status = "INACTIVE"
            self._found[deployment.id] = self._latest[target] = deployment
            if token:
                self._tokens[token] = deployment.id
        self._changed()
        return self._created(deployment)

    def _created(self, deployment: Deployment) -> dict[str, Any]:
        return {
            "deploymentId": deployment.id,
            "iotJobId": deployment.job,
            "iotJobArn": f"{self._scope}:job/{deployment.job}",
        }

    def _get(self, request: Mapping[str, Any]) -> dict[str, Any]:
        deployment = self._one(request["deploymentId"])
        told = ("components", "deploymentPolicies", "iotJobConfiguration", "tags")
        return {
            **self._summary(deployment),
            **self._created(deployment),
            **{key: deployment.request[key] for key in told if key in deployment.request},
        }

    def _describe_job(self, request: Mapping[str, Any]) -> dict[str, Any]:
        job = request["jobId"]
        found = next((one for one in tuple(self._found.values()) if one.job == job), None)
        if found is None:
            raise Fault("ResourceNotFoundException", f"Job {job} doesn't exist", 404)
        deployment = found.at(self._clock())
        counts = deployment.rollout.counts()
        details = {member: counts[status] for status, member in _COUNTED.items()}
        told: dict[str, Any] = {
            "jobId": job,
            "jobArn": f"{self._scope}:job/{job}",
            "targets": [deployment.target],
            "targetSelection": "SNAPSHOT" if ":thing/" in deployment.target else "CONTINUOUS",
            "status": _JOB_STATUS.get(deployment.status, "CANCELED"),
            "createdAt": deployment.created,
            "jobProcessDetails": details,
        }
        if deployment.rollout.stopped:
            told["comment"] = deployment.rollout.stopped
        return {"job": told}

    def _summary(self, deployment: Deployment) -> dict[str, Any]:
        deployment.at(self._clock())
        return {
            "targetArn": deployment.target,
            "revisionId": str(deployment.revision),
            "deploymentId": deployment.id,
            "deploymentName": deployment.name,
            "creationTimestamp": deployment.created,
            "deploymentStatus": deployment.status,
            "isLatestForTarget": self._latest.get(deployment.target) is deployment,
        }

    def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        every = request.get("historyFilter") == "ALL"
        found = [
            self._summary(one)
            for one in reversed(tuple(self._found.values()))
            if (every or self._latest.get(one.target) is one)
            and request.get("targetArn") in {None, one.target}
        ]
        return paged("deployments", found, request)

    def _cancel(self, request: Mapping[str, Any]) -> dict[str, Any]:
        deployment = self._one(request["deploymentId"]).at(self._clock())
        if deployment.status != "ACTIVE":
            raise Fault(
                "ConflictException",
                f"Deployment {deployment.id} is {deployment.status}",
                409,
                resourceId=deployment.id,
                resourceType="Deployment",
            )
        now = self._clock()
        deployment.rollout.stop("it was canceled", now)
        deployment.at(now)
        return {"message": "SUCCESS"}

    def _delete(self, request: Mapping[str, Any]) -> None:
        deployment = self._one(request["deploymentId"])
        if deployment.status == "ACTIVE":
            raise Fault(
                "ConflictException",
                f"Deployment {deployment.id} is active; cancel it first",
                409,
                resourceId=deployment.id,
                resourceType="Deployment",
            )
        del self._found[deployment.id]
        if self._latest.get(deployment.target) is deployment:
            del self._latest[deployment.target]

    def _effective(self, request: Mapping[str, Any]) -> dict[str, Any]:
        thing = request["coreDeviceThingName"]
        found = [
            {
                "deploymentId": one.id,
                "deploymentName": one.name,
                "iotJobId": one.job,
                "iotJobArn": f"{self._scope}:job/{one.job}",
                "targetArn": one.target,
                "coreDeviceExecutionStatus": one.rollout.executions[thing].status,
                "reason": one.rollout.executions[thing].reason,
                "creationTimestamp": one.created,
                "modifiedTimestamp": one.rollout.executions[thing].changed,
            }
            for one in reversed(tuple(self._found.values()))
            if thing in one.rollout.executions
        ]
        return paged("effectiveDeployments", found, request)

    def _one(self, number: str) -> Deployment:
        found = self._found.get(number)
        if found is None:
            raise Fault(
                "ResourceNotFoundException",
                f"Deployment {number} doesn't exist",
                404,
                resourceId=number,
                resourceType="Deployment",
            )
        return found


def _check_update(name: str, update: Mapping[str, Any]) -> None:
    merge = update.get("merge")
    if merge is None:
        return
    try:
        content = json.loads(merge)
    except ValueError as error:
        raise _unusable(name, f"is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise _unusable(name, "is no object")


def _unusable(name: str, why: str) -> Fault:
    return invalid(f"configurationUpdate.merge of {name} {why}")
