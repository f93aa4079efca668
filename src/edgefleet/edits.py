"""What operators do to a group, from the decision to the pointer on its channel.

Rules kept here:

- What stands against an edit is said before anything is stored or sent: the policy that a channel
  can't honour, then a plugin's veto.
- A release is stored before a pointer names it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import InvalidInputError
from edgefleet.releases import already_so, ask_plugins, names_of, next_record
from edgefleet.rollout import records

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.groups import GroupEditor
    from edgefleet.identity import Reserve
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.policy import RolloutPolicy
    from edgefleet.protocol.release import Release
    from edgefleet.rollout.records import GroupRecord, Stamp
    from edgefleet.services import Services


class Edited(NamedTuple):
    """A group after an edit; ``actor`` is None where nothing had to be changed."""

    deployer: Deployer
    group: str
    record: GroupRecord
    action: str
    actor: str | None


class Edits:
    """The edits of a fleet's groups.

    Args:
        services: of the fleet's profile.
        groups: reads and writes their records.
    """

    def __init__(self, services: Services, groups: GroupEditor) -> None:
        self._services = services
        self._groups = groups
        self._profile = services.profile
        self._asking = threading.Lock()

    def change(
        self,
        deployer: Deployer,
        group: str,
        change: Callable[[Release], Release],
        *,
        actor: str,
        action: records.Action,
        cohort_permille: int | None = None,
        policy: RolloutPolicy | None = None,
        reserve: Reserve | None = None,
    ) -> Edited:
        """Put what ``change`` makes of a group's release in its place, or before a cohort.

        Args:
            deployer: the group's.
            group: its bare name.
            change: pure; may be called several times.
            actor: who does it.
            action: for the group's log.
            cohort_permille: so many of a thousand devices first; None for all.
            policy: how the pointer reaches devices.
            reserve: numbers taken for many groups at once.

        Raises:
            UnsupportedError: the channel can't honour the policy.
            VetoedError: a plugin refused.
        """
        check_cohort(cohort_permille)
        if policy is not None:
            deployer.honouring(policy)

        def edit(record: GroupRecord, stamp: Callable[[], Stamp]) -> GroupRecord:
            before = self._groups.release(record.current)
            after = change(before)
            if already_so(record, after, cohort_permille, policy):
                return record
            self._ask(after, deployer, group, actor)
            self._groups.store(before)
            self._groups.store(after)
            return next_record(
                record,
                after,
                stamp(),
                cohort_permille=cohort_permille,
                action=action,
                policy=policy,
            )

        record, changed = self._groups.edit(deployer, group, edit, actor=actor, reserve=reserve)
        done = action if cohort_permille is None else "canary"
        return Edited(deployer, group, record, done, actor if changed else None)

    def step(
        self,
        deployer: Deployer,
        group: str,
        action: str,
        goal: Callable[[GroupRecord], str],
        change: Callable[[GroupRecord, Stamp, tuple[str, ...]], GroupRecord],
        *,
        actor: str,
        policy: RolloutPolicy | None = None,
    ) -> Edited:
        """Go to a release already known: ``goal`` names it, ``change`` makes the record."""
        if policy is not None:
            deployer.honouring(policy)

        def edit(record: GroupRecord, stamp: Callable[[], Stamp]) -> GroupRecord:
            release = self._groups.release(goal(record))
            self._ask(release, deployer, group, actor)
            return records.under(change(record, stamp(), names_of(release)), policy)

        record, changed = self._groups.edit(deployer, group, edit, actor=actor)
        return Edited(deployer, group, record, action, actor if changed else None)

    def _ask(self, release: Release, deployer: Deployer, group: str, actor: str) -> None:
        """Let plugins veto it, one question at a time: they needn't care about threads."""
        with self._asking:
            ask_plugins(self._profile, release, f"{deployer.name}/{group}", actor)


def check_cohort(permille: int | None) -> None:
    """Refuse a cohort that is none.

    Raises:
        InvalidInputError: it is.
    """
    if permille is not None and not 1 <= permille <= 1000:
        msg = f"cohort_permille is 1 to 1000, not {permille}"
        raise InvalidInputError(msg)
