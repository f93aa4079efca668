"""Greengrass's deployments: revisions of a target's components, and how far each device is.

Rules kept here, each in ``mock_rules.md``:

- A target has one deployment that counts, the latest; it replaces the component list of the one
  before, which is INACTIVE from then on.
- A deployment to a group goes on for devices that join later.
- A device hears of it at the rollout's rate; from its abort criteria on, no further device does.
- Cancelling reaches only devices that haven't begun.
"""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.components import paged
from edgefleet_aws.cloud.rest_json import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENDED = frozenset({"FAILED", "TIMED_OUT", "CANCELED", "REJECTED", "SUCCEEDED"})
_DEFAULT_RATE = 1000  # devices a minute


class Things(Protocol):
    """What IoT Core knows of things and groups."""

    def exists(self, arn: str) -> bool:
        """Whether there is a thing or a group of that ARN."""

    def targets_of(self, thing: str) -> tuple[str, ...]:
        """ARNs by which a thing is meant: its own, and of the groups that it is in."""


class Execution:
    """How far one device is with one deployment."""

    __slots__ = ("changed", "reason", "status")

    def __init__(self, status: str, changed: dt.datetime, reason: str = "") -> None:
        self.status = status
        self.changed = changed
        self.reason = reason


class Deployment:
    """A revision of a target's components."""

    def __init__(self, request: Mapping[str, Any], revision: int, created: dt.datetime) -> None:
        self.id = str(uuid.uuid4())
        self.job = str(uuid.uuid4())
        self.request = dict(request)
        self.target: str = request["targetArn"]
        self.revision = revision
        self.created = created
        self.status = "ACTIVE"
        self.executions: dict[str, Execution] = {}

    def kept(self) -> dict[str, Any]:
        """What `restored` makes it from again."""
        return {
            "id": self.id,
            "job": self.job,
            "request": self.request,
            "revision": self.revision,
            "created": self.created.isoformat(),
            "status": self.status,
            "executions": {
                thing: [one.status, one.changed.isoformat(), one.reason]
                for thing, one in self.executions.items()
            },
        }

    @classmethod
    def restored(cls, kept: Mapping[str, Any]) -> Deployment:
        """The deployment that `kept` told of."""
        created = dt.datetime.fromisoformat(kept["created"])
        one = cls(kept["request"], kept["revision"], created)
        one.id, one.job, one.status = kept["id"], kept["job"], kept["status"]
        one.executions = {
            thing: Execution(status, dt.datetime.fromisoformat(changed), reason)
            for thing, (status, changed, reason) in kept["executions"].items()
        }
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

    def begins_at(self, place: int) -> dt.datetime:
        """When the device that is ``place``-th in the queue hears of it."""
        config = self.request.get("iotJobConfiguration") or {}
        rollout = config.get("jobExecutionsRolloutConfig") or {}
        exponential = rollout.get("exponentialRate") or {}
        rate = exponential.get("baseRatePerMinute") or rollout.get("maximumPerMinute")
        return self.created + dt.timedelta(minutes=place / (rate or _DEFAULT_RATE))

    def to_abort(self) -> bool:
        """Whether its abort criteria are met."""
        config = self.request.get("iotJobConfiguration") or {}
        criteria = (config.get("abortConfig") or {}).get("criteriaList") or ()
        ended = [one.status for one in self.executions.values() if one.status in ENDED]
        for one in criteria:
            kinds = ENDED - {"SUCCEEDED"} if one["failureType"] == "ALL" else {one["failureType"]}
            failed = sum(status in kinds for status in ended)
            enough = len(ended) >= one["minNumberOfExecutedThings"]
            if enough and 100 * failed >= one["thresholdPercentage"] * len(ended):
                return True
        return False


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

    # -- what devices ask

    def wanted(self, thing: str) -> list[Deployment]:
        """The deployments that a device has to carry out now, one a target, oldest first."""
        now = self._clock()
        found = []
        for target in self._things.targets_of(thing):
            deployment = self._latest.get(target)
            if deployment is None:
                continue
            there = deployment.executions.get(thing)
            if there is None:
                if deployment.status != "ACTIVE":
                    continue
                there = Execution("QUEUED", now)
                deployment.executions[thing] = there
            place = list(deployment.executions).index(thing)
            if there.status != "CANCELED" and deployment.begins_at(place) <= now:
                found.append(deployment)
        return sorted(found, key=lambda one: one.created)

    def report(self, thing: str, deployment: Deployment, status: str, reason: str = "") -> None:
        """Take in what a device says of a deployment."""
        deployment.executions[thing] = Execution(status, self._clock(), reason)
        if deployment.status == "ACTIVE" and deployment.to_abort():
            self._end(deployment)
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
        before = self._latest.get(target)
        revision = 1 if before is None else before.revision + 1
        deployment = Deployment(request, revision, self._clock())
        if before is not None:
            before.status = "INACTIVE"
            for one in before.executions.values():
                if one.status == "QUEUED":
                    one.status = "CANCELED"
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

    def _summary(self, deployment: Deployment) -> dict[str, Any]:
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
            for one in reversed(self._found.values())
            if (every or self._latest.get(one.target) is one)
            and request.get("targetArn") in {None, one.target}
        ]
        return paged("deployments", found, request)

    def _cancel(self, request: Mapping[str, Any]) -> dict[str, Any]:
        deployment = self._one(request["deploymentId"])
        if deployment.status != "ACTIVE":
            raise Fault(
                "ConflictException",
                f"Deployment {deployment.id} is {deployment.status}",
                409,
                resourceId=deployment.id,
                resourceType="Deployment",
            )
        self._end(deployment)
        return {"message": "SUCCESS"}

    def _end(self, deployment: Deployment) -> None:
        deployment.status = "CANCELED"
        for one in deployment.executions.values():
            if one.status == "QUEUED":
                one.status, one.changed = "CANCELED", self._clock()

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
                "coreDeviceExecutionStatus": one.executions[thing].status,
                "reason": one.executions[thing].reason,
                "creationTimestamp": one.created,
                "modifiedTimestamp": one.executions[thing].changed,
            }
            for one in reversed(self._found.values())
            if thing in one.executions
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
