"""Pointers in the deployments of a fleet's thing groups: read, rendered, put in place.

Rules kept here:

- AWS has no compare-and-swap for deployments: `WantedPointers` keeps the highest pointer of each
  group, and the policy it goes by.
- A revision replaces a target's components. What others deploy to our thing groups is copied, and
  looked at again just before ours is sent; a window of one call remains, in which an edit of theirs
  is lost.
- How many calls that takes depends neither on the number of devices nor on that of groups.
"""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import ConflictError, DocumentError
from edgefleet.interfaces.policy import RolloutProgress
from edgefleet.interfaces.values import Action, Rendered
from edgefleet.interfaces.wanted import WantedPointers
from edgefleet_aws import pacing, recipes, revisions
from edgefleet_aws.errors import code_of
from edgefleet_aws.install import latest, latest_id, publish_component
from edgefleet_aws.names import RELEASE, RELEASE_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet.interfaces.policy import RolloutPolicy
    from edgefleet.interfaces.state import StateStore
    from edgefleet.protocol.pointer import Pointer
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.groups import ThingGroups
    from edgefleet_aws.names import Names
    from edgefleet_aws.settings import AwsSettings

MAX_ROUNDS = 50  # of publishing, while others edit the same thing group
_STATES = {
    "numberOfQueuedThings": "queued",
    "numberOfInProgressThings": "in progress",
    "numberOfSucceededThings": "succeeded",
    "numberOfFailedThings": "failed",
    "numberOfRejectedThings": "rejected",
    "numberOfTimedOutThings": "timed out",
    "numberOfCanceledThings": "canceled",
}


class _InPlace(NamedTuple):
    """The deployment of a group's thing group."""

    arn: str
    deployment: dict[str, Any] | None

    @property
    def id(self) -> str | None:
        return None if self.deployment is None else str(self.deployment["deploymentId"])


class GroupPointers:
    """The pointers of one fleet's groups.

    Args:
        clients: to reach AWS with.
        settings: bucket, prefix, region.
        names: of the fleet.
        things: its thing groups.
        state: gives the profile's state store.
        deployer: name of the deployer in the profile.
    """

    def __init__(
        self,
        clients: Clients,
        settings: AwsSettings,
        names: Names,
        things: ThingGroups,
        state: Callable[[], StateStore],
        *,
        deployer: str,
    ) -> None:
        self._clients = clients
        self._settings = settings
        self._names = names
        self._things = things
        self._wanted = WantedPointers(state, deployer=deployer)
        self._component_is_there = False
        self._looking = threading.Lock()

    def read(self, group: str) -> Pointer | None:
        """The pointer that a group's deployment carries; None for none."""
        return revisions.pointer_of(self._in_place(group).deployment)

    def render(
        self, group: str, pointer: Pointer, policy: RolloutPolicy | None
    ) -> Iterator[Rendered]:
        """What `publish` would send."""
        place = self._in_place(group)
        content = revisions.document(self._request(group, place, pointer, policy))
        if place.deployment is None:
            action = Action.CREATE
        else:
            same = revisions.pointer_of(place.deployment) == pointer
            action = Action.UNCHANGED if same else Action.UPDATE
        yield Rendered(path=f"deployment-{group}.json", content=content, action=action)
        if not self._release_component_is_there(place.arn):  # the first release of an account
            yield Rendered(
                path=f"recipe-{RELEASE}-{RELEASE_VERSION}.yaml",
                content=recipes.encoded(recipes.release_recipe()),
                action=Action.CREATE,
            )

    def publish(self, group: str, pointer: Pointer, policy: RolloutPolicy | None) -> None:
        """Have a group's deployment carry the highest pointer, and that be this one.

        Raises:
            ConflictError: there is a higher one, or others kept revising the deployment.
        """
        highest = self._wanted.raise_to(group, pointer, policy)
        for _ in range(MAX_ROUNDS):
            place = self._in_place(group)
            if _carried(place.deployment) == highest.pointer:
                if highest.pointer.pair > pointer.pair:
                    raise ConflictError(
                        f"pointer {highest.pointer.pair} was put on {group} at the same time",
                        cure="read the group again and repeat",
                    )
                return
            request = self._request(group, place, highest.pointer, highest.going_by())
            self._ensure_release_component()
            if latest_id(self._clients.greengrass, place.arn) == place.id:
                self._clients.greengrass.create_deployment(**request, clientToken=uuid.uuid4().hex)
            # Else somebody's revision came between. Either way: is it so now, and still wanted?
            highest = self._wanted.highest(group)
        raise ConflictError(
            f"the deployment of {group} changed {MAX_ROUNDS} times while it was being revised",
            cure="repeat the call when fewer people are at work",
        )

    def progress(self, group: str) -> RolloutProgress | None:
        """How far Greengrass is with a group's deployment, in one count for all its devices."""
        deployment = self._in_place(group).deployment
        if deployment is None:
            return None
        job = self._clients.iot.describe_job(jobId=deployment["iotJobId"])["job"]
        counted = job.get("jobProcessDetails", {})
        counts = {word: counted[key] for key, word in _STATES.items() if counted.get(key)}
        if deployment["deploymentStatus"] not in {"CANCELED", "FAILED"}:
            return RolloutProgress(state="open", devices=counts)
        why = job.get("reasonCode") or job.get("comment") or deployment["deploymentStatus"].lower()
        return RolloutProgress(state="stopped", why=str(why), devices=counts)

    def _in_place(self, group: str) -> _InPlace:
        arn = self._things.arn(group)
        return _InPlace(arn, latest(self._clients.greengrass, arn))

    def _request(
        self, group: str, place: _InPlace, pointer: Pointer, policy: RolloutPolicy | None
    ) -> dict[str, Any]:
        there = place.deployment
        name = f"{self._names.prefix} {group}"
        first = revisions.revised(there, place.arn, name, {})
        request, note = pacing.paced(
            first, revisions.settings_of(there).get(pacing.NOTE, ""), policy
        )
        region = str(self._clients.greengrass.meta.region_name)
        told = {**revisions.told(self._settings, region, pointer), pacing.NOTE: note}
        return revisions.with_settings(request, told)

    def _release_component_is_there(self, thing_group: str) -> bool:
        """Whether the empty component's version exists in the account of a thing group."""
        _, partition, _, region, account, _ = thing_group.split(":", 5)
        start = f"arn:{partition}:greengrass:{region}:{account}:components"
        try:
            self._clients.greengrass.describe_component(
                arn=f"{start}:{RELEASE}:versions:{RELEASE_VERSION}"
            )
        except Exception as error:
            if code_of(error) == "ResourceNotFoundException":
                return False
            raise
        return True

    def _ensure_release_component(self) -> None:
        """The empty component is there; looked at once, because it is never deleted by us."""
        with self._looking:
            if not self._component_is_there:
                publish_component(self._clients.greengrass, recipes.release_recipe())
                self._component_is_there = True


def _carried(deployment: Mapping[str, Any] | None) -> Pointer | None:
    """The pointer in a deployment; None also for what is none, which is then replaced."""
    try:
        return revisions.pointer_of(deployment)
    except DocumentError:
        return None
