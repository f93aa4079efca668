"""Giving a release to many groups at once, at a cost that grows with the groups alone.

Rules kept here:

- Groups are listed once, numbers are taken in one go, a release is stored once; what is left is
  the same few calls for each group, some groups at a time.
- A group that fails holds up no other. What would fail everywhere, such as access that has run
  out, ends the launch.
- Called again, it changes only what is not so yet.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.edits import Edited, Edits, check_cohort
from edgefleet.errors import (
    AccessDeniedError,
    DeploymentFailedError,
    EdgeFleetError,
    PolicyError,
    UnsupportedError,
)
from edgefleet.groups import GroupEditor
from edgefleet.interfaces.progress import Steps
from edgefleet.releases import already_so, documents_of, previewed
from edgefleet.rollout.launch import GroupLaunch, GroupPlan, Launch, LaunchPlan, chosen
from edgefleet.rollout.plan import changes_between

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from edgefleet.deployment import Deployment
    from edgefleet.identity import Reserve
    from edgefleet.interfaces.policy import RolloutPolicy
    from edgefleet.interfaces.values import Group, Rendered
    from edgefleet.protocol.release import Release
    from edgefleet.rollout import records
    from edgefleet.services import Services

WORKERS = 8  # groups at a time
TOLD = 8  # failures that a message lists


class Terms(NamedTuple):
    """How a release is given to groups: by whom, to a cohort, under which policy."""

    actor: str
    cohort_permille: int | None = None
    policy: RolloutPolicy | None = None


class Launcher:
    """Launches of one fleet.

    Args:
        services: of its profile.
        deployed: told of each group that was edited, one at a time.
        progress: show it where a person looks.
    """

    def __init__(
        self, services: Services, deployed: Callable[[Edited], Deployment], *, progress: bool
    ) -> None:
        self._services = services
        self._deployed = deployed
        self._progress = progress
        self._groups = GroupEditor(services, brief=True)
        self._edits = Edits(services, self._groups)

    def plan(
        self,
        choose: Callable[[bool], Callable[[Release], Release]],
        to: Iterable[str],
        *,
        terms: Terms,
        documents: bool,
    ) -> LaunchPlan:
        """What `launch` would do. Nothing is sent.

        Args:
            choose: whether to refuse what may not deploy -> what makes a group's new release.
            to: names and patterns of groups.
            terms: how it would be given.
            documents: render each group's documents, too.
        """
        check_cohort(terms.cohort_permille)
        groups = self._chosen(to)
        refused: tuple[str, ...] = ()
        try:
            change = choose(True)
        except PolicyError as error:
            refused, change = (str(error),), choose(False)

        def plan(group: Group) -> GroupPlan:
            return self._planned(group, change, terms, refused, documents=documents)

        with (
            ThreadPoolExecutor(WORKERS) as workers,
            Steps("planning", len(groups), enabled=self._progress) as step,
        ):
            found = []
            for one in workers.map(plan, groups):
                found.append(one)
                step()
        return LaunchPlan(groups=tuple(found), policy=terms.policy)

    def launch(
        self,
        change: Callable[[Release], Release],
        to: Iterable[str],
        *,
        terms: Terms,
        action: records.Action,
    ) -> Launch:
        """Give each group what ``change`` makes of its release.

        Raises:
            UnsupportedError: a group's channel can't honour the policy; nothing was sent.
            DeploymentFailedError: groups weren't given it.
        """
        check_cohort(terms.cohort_permille)
        groups = self._chosen(to)
        if terms.policy is not None:
            for name in {group.deployer for group in groups}:
                self._services.deployers[name].honouring(terms.policy)
        reserve = self._groups.reserve(len(groups))
        done: dict[str, GroupLaunch] = {}
        failures: list[EdgeFleetError] = []
        ended = threading.Event()

        def edited(group: Group) -> Edited | None:
            return None if ended.is_set() else self._edited(group, change, terms, action, reserve)

        with (
            ThreadPoolExecutor(WORKERS) as workers,
            Steps("rolling out", len(groups), enabled=self._progress) as step,
        ):
            try:
                waiting = {workers.submit(edited, group): group for group in groups}
                for future in as_completed(waiting):
                    group = waiting[future]
                    done[group.reference] = self._outcome(group, future, failures)
                    step()
                    if failures and isinstance(failures[-1], AccessDeniedError):
                        ended.set()
            finally:
                ended.set()  # also when it is interrupted: what waits isn't begun any more
        launch = Launch(groups=tuple(done[group.reference] for group in groups))
        if failures:
            raise _failed(launch, failures) from failures[0]
        return launch

    def _chosen(self, to: Iterable[str]) -> tuple[Group, ...]:
        return chosen(self._services.groups(), to)

    def _edited(
        self,
        group: Group,
        change: Callable[[Release], Release],
        terms: Terms,
        action: records.Action,
        reserve: Reserve,
    ) -> Edited:
        return self._edits.change(
            self._services.deployers[group.deployer],
            group.name,
            change,
            actor=terms.actor,
            action=action,
            cohort_permille=terms.cohort_permille,
            policy=terms.policy,
            reserve=reserve,
        )

    def _outcome(
        self, group: Group, future: Future[Edited | None], failures: list[EdgeFleetError]
    ) -> GroupLaunch:
        try:
            edited = future.result()
        except EdgeFleetError as error:
            failures.append(error)
            return GroupLaunch(group=group.reference, error=error.message)
        if edited is None:
            return GroupLaunch(group=group.reference, error=_NOT_TRIED)
        deployment = self._deployed(edited)
        return GroupLaunch(
            group=group.reference, number=deployment.number, changed=edited.actor is not None
        )

    def _planned(
        self,
        group: Group,
        change: Callable[[Release], Release],
        terms: Terms,
        refused: tuple[str, ...],
        *,
        documents: bool,
    ) -> GroupPlan:
        deployer, policy, problems = self._services.deployers[group.deployer], terms.policy, refused
        record = self._groups.record(deployer, group.name)
        before = self._groups.release(record.current)
        after = change(before)
        if policy is not None:
            try:
                deployer.honouring(policy)
            except UnsupportedError as error:
                policy, problems = None, (*refused, str(error))
        rendered: tuple[Rendered, ...] = ()
        if documents:
            preview = previewed(
                record,
                after,
                groups=self._groups,
                registry=self._services.registry,
                actor=terms.actor,
                cohort_permille=terms.cohort_permille,
                policy=policy,
            )
            rendered = documents_of(
                self._services.registry, deployer, group.name, preview, (before, after)
            )
        return GroupPlan(
            group=group.reference,
            before=record.current if record.stack else None,
            after=after.digest,
            changes=changes_between(before, after),
            devices=group.devices,
            unchanged=already_so(record, after, terms.cohort_permille, policy),
            documents=rendered,
            problems=problems,
        )


_NOT_TRIED = "not tried: the launch was ended before its turn"


def _failed(launch: Launch, failures: list[EdgeFleetError]) -> DeploymentFailedError:
    lines = [f"  {one.group}: {one.error}" for one in launch.failed if one.error != _NOT_TRIED]
    left = len(launch.failed) - len(lines[:TOLD])
    lines = lines[:TOLD] + ([f"  … and {left} more"] if left else [])
    cure = "call it again, it goes on with the groups that still lack it"
    first = failures[0].cure
    return DeploymentFailedError(
        "\n".join([launch.headline, *lines]),
        cure=f"{first}; then {cure}" if first else cure,
        operation="fleet.roll_out",
    )
