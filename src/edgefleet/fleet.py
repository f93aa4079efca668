"""Fleet: one object over registry, trainer, deployers, telemetry and state."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgefleet import access
from edgefleet.actor import current_actor
from edgefleet.datasets import Datasets
from edgefleet.deployment import Deployment
from edgefleet.edits import Edits
from edgefleet.errors import NotFoundError
from edgefleet.groups import GroupEditor
from edgefleet.insights import Insights
from edgefleet.interfaces.abilities import CanRunDevices
from edgefleet.launches import Launcher, Terms
from edgefleet.membership import Membership
from edgefleet.models import Models
from edgefleet.plugins import discovery
from edgefleet.policy_files import read_policy
from edgefleet.profile import Profile, load_profile
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.release import Release, Role
from edgefleet.releases import make_plan, release_recording, release_with
from edgefleet.rollout import records
from edgefleet.rollout.judgement import FleetStatus
from edgefleet.runtimes import Upgrading
from edgefleet.services import Services
from edgefleet.standing import explained, group_status
from edgefleet.sticks.carrying import Carrying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta
    from os import PathLike

    from edgefleet.edits import Edited
    from edgefleet.interfaces.access import AccessKind, AccessTerm
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.policy import RolloutPolicy
    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.telemetry import EventQuery, Telemetry
    from edgefleet.interfaces.values import DeviceInfo, Group
    from edgefleet.releases import Model
    from edgefleet.rollout.explain import Explanation
    from edgefleet.rollout.judgement import GroupStatus
    from edgefleet.rollout.launch import Launch, LaunchPlan
    from edgefleet.rollout.plan import Plan
    from edgefleet.rollout.records import GroupRecord, Stamp


def connect(profile: str | None = None, *, config: Path | str | None = None) -> Fleet:
    """A fleet by the name of its profile. Nothing is contacted before it is used.

    Args:
        profile: None for EDGEFLEET_PROFILE or the default one.
        config: the configuration file; None for the one in effect, see `edgefleet.profile`.

    Raises:
        ProfileError: no such profile, or something in it is wrong.
        ProviderNotFoundError: the profile names a provider that isn't installed.
    """
    loaded = load_profile(profile, config=None if config is None else Path(config))
    for name in loaded.plugins():
        discovery.provider(name)
    return Fleet(loaded)


class Fleet(Insights, Membership, Models, Datasets, Carrying, Upgrading):
    """Models, devices and what happens between them. Use as a context manager, or call `close`."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        super().__init__(Services(profile))
        self._groups = GroupEditor(self._services)
        self._edits = Edits(self._services, self._groups)

    def __repr__(self) -> str:
        return f"<fleet {self.profile.name!r} on {', '.join(self.profile.plugins())}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release connections and processes of every service; may be called twice."""
        self._services.close()

    @property
    def deployers(self) -> Mapping[str, Deployer]:
        """The profile's deployers by name."""
        return self._services.deployers

    @property
    def telemetry(self) -> Telemetry:
        """The profile's telemetry."""
        return self._services.telemetry

    @property
    def state(self) -> StateStore:
        """The profile's state store."""
        return self._services.state

    # Devices

    def groups(self) -> tuple[Group, ...]:
        """Groups of all deployers."""
        return self._services.groups()

    def devices(
        self, group: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> tuple[DeviceInfo, ...]:
        """Devices, of one group or all, that carry all the labels given, with their reports.

        All are read before this returns; `Deployer.devices` gives them one by one, for a fleet
        that is too large to hold.

        Args:
            group: ``group`` or ``deployer/group``; None for all.
            labels: free text by key.

        Raises:
            NotFoundError: no such group.
        """
        if group is None:
            every = self.deployers.values()
            return tuple(info for deployer in every for info in deployer.devices(labels=labels))
        deployer, name = self._services.find_group(group)
        return tuple(deployer.devices(name, labels=labels))

    # Deployments

    def plan(
        self,
        model: Model | Release,
        *,
        to: str,
        cohort_permille: int | None = None,
        role: Role = "active",
        policy: RolloutPolicy | None = None,
    ) -> Plan:
        """What deploying would do. Nothing is sent; a missing approval is a problem listed."""
        deployer, group = self._services.find_group(to)
        return make_plan(
            deployer,
            group,
            groups=self._groups,
            registry=self.registry,
            profile=self.profile,
            actor=current_actor(),
            choose=lambda checked: self._release_with(model, checked=checked, role=role),
            cohort_permille=cohort_permille,
            policy=policy,
        )

    def deploy(
        self,
        model: Model | Release,
        *,
        to: str,
        cohort_permille: int | None = None,
        role: Role = "active",
        policy: RolloutPolicy | None = None,
    ) -> Deployment:
        """Add a model to a group's release, in place of another version of it; the rest stays.

        Returns at once. The same again changes nothing.

        Args:
            model: a version, a reference, or a whole release that replaces the group's.
            to: ``group`` or ``deployer/group``.
            cohort_permille: give it to so many of a thousand devices first; see
                `Deployment.promote`.
            role: ``shadow`` for a model that gets copies of the active one's requests on each
                device; its answers are compared and reported, never returned. Deploy it again as
                ``active`` to put it in that one's place.
            policy: how fast it reaches devices and when it stops; see `RolloutPolicy`. The same
                release under another policy is a new pointer, for which the channel begins anew.

        Raises:
            InvalidInputError: a shadow without an active model of its name.
            UnsupportedError: the group's channel can't honour the policy.
            ApprovalRequiredError: the profile asks for approved versions and this one isn't.
            PolicyError: it was rejected.
            VetoedError: a plugin refused.
        """
        action: records.Action = "replace" if isinstance(model, Release) else "deploy"
        return self._edit(
            to,
            self._release_with(model, role=role),
            action,
            cohort_permille,
            policy,
        )

    def plan_rollout(
        self,
        model: Model | Release,
        *,
        to: str | Iterable[str],
        cohort_permille: int | None = None,
        policy: RolloutPolicy | None = None,
        documents: bool = False,
        progress: bool = True,
    ) -> LaunchPlan:
        """What `roll_out` would do, group by group; devices are not looked at. Nothing is sent.

        Args:
            model: as for `deploy`.
            to: names and patterns of groups, as for `roll_out`.
            cohort_permille: as for `deploy`.
            policy: as for `deploy`.
            documents: render each group's documents, too.
            progress: show it where a person looks.
        """
        return self._launcher(progress=progress).plan(
            lambda checked: self._release_with(model, checked=checked),
            (to,) if isinstance(to, str) else to,
            terms=Terms(current_actor(), cohort_permille=cohort_permille, policy=policy),
            documents=documents,
        )

    def roll_out(
        self,
        model: Model | Release,
        *,
        to: str | Iterable[str],
        cohort_permille: int | None = None,
        policy: RolloutPolicy | None = None,
        progress: bool = True,
    ) -> Launch:
        """Deploy to many groups at once; see `deploy`. Returns when each was given its pointer.

        How many calls that takes grows with the number of groups, not with that of devices. Called
        again, it gives it to the groups that still lack it.

        Args:
            model: as for `deploy`.
            to: ``group`` or ``deployer/group``, one or several; ``*``, ``?`` and ``[…]`` stand for
                characters.
            cohort_permille: as for `deploy`.
            policy: as for `deploy`; each group's channel goes by it on its own.
            progress: show it where a person looks.

        Raises:
            NotFoundError: no group of that name or pattern.
            DeploymentFailedError: some groups weren't given it; the message says which, and why.
        """
        return self._launcher(progress=progress).launch(
            self._release_with(model),
            (to,) if isinstance(to, str) else to,
            terms=Terms(current_actor(), cohort_permille=cohort_permille, policy=policy),
            action="replace" if isinstance(model, Release) else "deploy",
        )

    def _launcher(self, *, progress: bool) -> Launcher:
        return Launcher(self._services, self._deployed, progress=progress)

    def remove(self, name: str, *, to: str, role: Role | None = None) -> Deployment:
        """Take a model out of a group's release; the rest stays.

        Args:
            name: the model.
            to: ``group`` or ``deployer/group``.
            role: only in this role: ``shadow`` ends a comparison. None for all of them.

        Raises:
            NotFoundError: the group's release doesn't have it.
        """

        def without(before: Release) -> Release:
            out = [m for m in before.models if m.name == name and role in (None, m.role)]
            if not out:
                there = ", ".join(model.label for model in before.models) or "none"
                msg = f"{to} has no model {name!r}" + (f" as {role}" if role else "")
                raise NotFoundError(msg, cure=f"models it has: {there}")
            if role == "shadow":
                return before.without_shadow(name, out[0].bundle)
            return before.without_model(name)

        return self._edit(to, without, "remove", None)

    def record(self, policy: TelemetryPolicy | str | PathLike[str], *, to: str) -> Deployment:
        """Give a group's devices another telemetry policy; what they run stays as it is.

        It stays over deployments, whatever the profile's ``recorded`` says.

        Args:
            policy: itself, or the path of a TOML file that holds one.
            to: ``group`` or ``deployer/group``.

        Raises:
            NotFoundError: there is no such file.
            InvalidInputError: something in it is wrong: the message says where. Nothing was sent.
            MissingExtraError: it has conditions, and the library for them isn't installed here.
            VetoedError: a plugin refused.
        """
        wanted = policy if isinstance(policy, TelemetryPolicy) else read_policy(policy)
        return self._edit(to, release_recording(wanted), "record", None)

    def recording(self, group: str) -> TelemetryPolicy:
        """The telemetry policy of a group's release."""
        deployer, name = self._services.find_group(group)
        return self._groups.release(self._groups.record(deployer, name).current).telemetry

    def rollback(self, group: str) -> Deployment:
        """Go back to the release before the current one, by a new, higher pointer.

        Again goes further back, at last to the empty release, where every group starts.

        Raises:
            PolicyError: there is nothing to go back to.
        """
        return self._step(
            group,
            "rollback",
            records.earlier_release,
            lambda record, stamp, models: records.rolled_back(record, stamp, models=models),
        )

    def promote(self, group: str, *, policy: RolloutPolicy | None = None) -> Deployment:
        """Give the candidate that a cohort tries to every device of the group."""
        return self._step(
            group,
            "promote",
            lambda record: record.candidate or record.current,
            lambda record, stamp, models: records.promoted(record, stamp, models=models),
            policy,
        )

    def cancel(self, group: str) -> Deployment:
        """Take back the candidate from its cohort; without one, roll back."""
        return self._step(
            group,
            "cancel",
            lambda record: record.current if record.candidate else records.earlier_release(record),
            lambda record, stamp, models: records.cancelled(record, stamp, models=models),
        )

    def _step(
        self,
        reference: str,
        action: str,
        goal: Callable[[GroupRecord], str],
        change: Callable[[GroupRecord, Stamp, tuple[str, ...]], GroupRecord],
        policy: RolloutPolicy | None = None,
    ) -> Deployment:
        """An edit that goes to a release already known."""
        deployer, group = self._services.find_group(reference)
        return self._deployed(
            self._edits.step(
                deployer, group, action, goal, change, actor=current_actor(), policy=policy
            )
        )

    def _edit(
        self,
        reference: str,
        change: Callable[[Release], Release],
        action: records.Action,
        cohort_permille: int | None,
        policy: RolloutPolicy | None = None,
    ) -> Deployment:
        deployer, group = self._services.find_group(reference)
        return self._deployed(
            self._edits.change(
                deployer,
                group,
                change,
                actor=current_actor(),
                action=action,
                cohort_permille=cohort_permille,
                policy=policy,
            )
        )

    def _release_with(
        self, model: Model | Release, *, checked: bool = True, role: Role = "active"
    ) -> Callable[[Release], Release]:
        return release_with(
            model, registry=self.registry, profile=self.profile, checked=checked, role=role
        )

    def _deployed(self, edited: Edited) -> Deployment:
        """The deployment to give back; plugins are told of it where an actor changed something."""
        pointer = edited.record.pointer
        assert pointer is not None  # noqa: S101 - an edit always makes one
        if isinstance(edited.deployer, CanRunDevices):
            edited.deployer.run_devices()
        deployment = Deployment(
            self.group_status,
            promote=self.promote,
            cancel=self.cancel,
            group=f"{edited.deployer.name}/{edited.group}",
            pair=pointer.pair,
            release=edited.record.candidate or pointer.current,
            action=edited.action,
        )
        if edited.actor is not None:
            discovery.notify_deployed(self.profile.listeners(), deployment, edited.actor)
        return deployment

    # Access

    def access(self) -> dict[str, tuple[AccessTerm, ...]]:
        """Until when devices may read and write, by deployer; only where the operator renews it."""
        return access.terms(self._services)

    def renew_access(
        self,
        group: str | None = None,
        *,
        within: timedelta | None = None,
        progress: bool = True,
    ) -> dict[str, tuple[AccessTerm, ...]]:
        """Renew the access that ends soon; see `CanRenewAccess.renew_access`.

        Args:
            group: ``group`` or ``deployer/group``; None for all.
            within: what ends within that; None for half of what new access lasts.
            progress: show it where a person looks.

        Raises:
            UnsupportedError: the group's channel has no access to renew.
        """
        return access.renew(self._services, group=group, within=within, progress=progress)

    def revoke_access(self, kind: AccessKind) -> tuple[str, ...]:
        """End all access of a kind at once; see `CanRenewAccess.revoke_access`.

        Returns:
            The deployers that had any to end.
        """
        return access.revoke(self._services, kind)

    # What happened

    def group_status(self, group: str) -> GroupStatus:
        """A group now: each device judged by its own report against the newest pointer."""
        deployer, name = self._services.find_group(group)
        return group_status(deployer, name, self._groups)

    def status(self, group: str | None = None) -> FleetStatus:
        """Every group now, or one of them."""
        if group is not None:
            return FleetStatus(groups=(self.group_status(group),))
        return FleetStatus(groups=tuple(self.group_status(g.reference) for g in self.groups()))

    def history(self, group: str) -> tuple[records.Entry, ...]:
        """What was done to a group, newest first."""
        deployer, name = self._services.find_group(group)
        return tuple(reversed(self._groups.record(deployer, name).log))

    def why(self, device: str) -> Explanation:
        """One page on a device: wanted and actual release, where it stopped, evidence, cure."""
        held = self.device(device)
        return explained(held.deployer, held.info, self._groups)

    def events(
        self,
        *,
        kind: str | None = None,
        model: str | None = None,
        device: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> EventQuery:
        """What devices recorded; see `Telemetry.query`."""
        return self.telemetry.query(kind=kind, model=model, device=device, since=since, until=until)
