"""Fleet: one object over registry, trainer, deployers, telemetry and state."""

from __future__ import annotations

import getpass
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgefleet.capabilities import require
from edgefleet.deployment import Deployment
from edgefleet.devices import Device
from edgefleet.errors import ConflictError, InvalidInputError, NotFoundError
from edgefleet.groups import GroupEditor
from edgefleet.interfaces.abilities import CanEnroll, CanRunDevices
from edgefleet.models import Models
from edgefleet.plugins import discovery
from edgefleet.profile import Profile, load_profile
from edgefleet.protocol.release import Release, Role
from edgefleet.releases import (
    already_so,
    ask_plugins,
    make_plan,
    names_of,
    next_record,
    release_with,
)
from edgefleet.rollout import records
from edgefleet.rollout.explain import Explanation, explain
from edgefleet.rollout.judgement import FleetStatus, GroupStatus, judge, judge_all
from edgefleet.services import Services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.telemetry import EventQuery, Telemetry
    from edgefleet.interfaces.values import DeviceInfo, Group
    from edgefleet.releases import Model
    from edgefleet.rollout.plan import Plan
    from edgefleet.rollout.records import GroupRecord, Stamp

ACTOR_VARIABLE = "EDGEFLEET_ACTOR"


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


class Fleet(Models):
    """Models, devices and what happens between them. Use as a context manager, or call `close`."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        super().__init__(Services(profile))
        self._groups = GroupEditor(self._services)

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
    ) -> Iterator[DeviceInfo]:
        """Devices, of one group or all, that carry all the labels given."""
        if group is None:
            for deployer in self.deployers.values():
                yield from deployer.devices(labels=labels)
        else:
            deployer, name = self._services.find_group(group)
            yield from deployer.devices(name, labels=labels)

    def device(self, name: str) -> Device:
        """A device by name, to look at it or send it a request.

        Raises:
            NotFoundError: no deployer knows it.
        """
        for deployer in self.deployers.values():
            try:
                return Device(deployer, deployer.device(name))
            except NotFoundError:
                continue
        msg = f"no device {name!r} in the fleet"
        raise NotFoundError(msg, cure="list the devices with: edgefleet devices")

    def enroll(
        self, device: str, *, group: str, labels: Mapping[str, str] | None = None
    ) -> DeviceInfo:
        """Add a device to a group, made if need be, where the deployer can do that from here."""
        deployer, name = self._services.find_group(group, must_exist=False)
        for other in self.deployers.values():
            if other is not deployer and any(d.name == device for d in other.devices()):
                msg = f"device {device!r} is in a group of {other.name}"
                cure = "a device is in one group of a fleet: retire it there first"
                raise ConflictError(msg, cure=cure, retryable=False)
        return require(deployer, CanEnroll).enroll(device, group=name, labels=labels)

    def retire(self, device: str) -> None:
        """Take a device out of the fleet."""
        require(self.device(device).deployer, CanEnroll).retire(device)

    # Deployments

    def plan(
        self,
        model: Model | Release,
        *,
        to: str,
        cohort_permille: int | None = None,
        role: Role = "active",
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
            choose=lambda before, checked: self._release_with(
                model, before, checked=checked, role=role
            ),
            cohort_permille=cohort_permille,
        )

    def deploy(
        self,
        model: Model | Release,
        *,
        to: str,
        cohort_permille: int | None = None,
        role: Role = "active",
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

        Raises:
            InvalidInputError: a shadow without an active model of its name.
            ApprovalRequiredError: the profile asks for approved versions and this one isn't.
            PolicyError: it was rejected.
            VetoedError: a plugin refused.
        """
        action: records.Action = "replace" if isinstance(model, Release) else "deploy"
        return self._edit(
            to,
            lambda before: self._release_with(model, before, role=role),
            action,
            cohort_permille,
        )

    def remove(self, name: str, *, to: str) -> Deployment:
        """Take a model out of a group's release; the rest stays.

        Raises:
            NotFoundError: the group's release doesn't have it.
        """

        def without(before: Release) -> Release:
            if name not in {model.name for model in before.models}:
                there = ", ".join(model.name for model in before.models) or "none"
                msg = f"{to} has no model {name!r}"
                raise NotFoundError(msg, cure=f"models it has: {there}")
            return before.without_model(name)

        return self._edit(to, without, "remove", None)

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

    def promote(self, group: str) -> Deployment:
        """Give the candidate that a cohort tries to every device of the group."""
        return self._step(
            group,
            "promote",
            lambda record: record.candidate or record.current,
            lambda record, stamp, models: records.promoted(record, stamp, models=models),
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
    ) -> Deployment:
        """An edit that goes to a release already known."""
        deployer, group = self._services.find_group(reference)
        actor = current_actor()

        def edit(record: GroupRecord, stamp: Callable[[], Stamp]) -> GroupRecord:
            release = self._groups.release(goal(record))
            ask_plugins(self.profile, release, f"{deployer.name}/{group}", actor)
            return change(record, stamp(), names_of(release))

        after, changed = self._groups.edit(deployer, group, edit, actor=actor)
        return self._deployed(deployer, group, after, action, actor if changed else None)

    def _edit(
        self,
        reference: str,
        change: Callable[[Release], Release],
        action: records.Action,
        cohort_permille: int | None,
    ) -> Deployment:
        if cohort_permille is not None and not 1 <= cohort_permille <= 1000:
            msg = f"cohort_permille is 1 to 1000, not {cohort_permille}"
            raise InvalidInputError(msg)
        deployer, group = self._services.find_group(reference)
        actor = current_actor()

        def edit(record: GroupRecord, stamp: Callable[[], Stamp]) -> GroupRecord:
            before = self._groups.release(record.current)
            after = change(before)
            if already_so(record, after, cohort_permille):
                return record
            ask_plugins(self.profile, after, f"{deployer.name}/{group}", actor)
            self.registry.put_release(before)
            self.registry.put_release(after)
            return next_record(
                record, after, stamp(), cohort_permille=cohort_permille, action=action
            )

        after, changed = self._groups.edit(deployer, group, edit, actor=actor)
        done = action if cohort_permille is None else "canary"
        return self._deployed(deployer, group, after, done, actor if changed else None)

    def _release_with(
        self,
        model: Model | Release,
        before: Release,
        *,
        checked: bool = True,
        role: Role = "active",
    ) -> Release:
        return release_with(
            model, before, registry=self.registry, profile=self.profile, checked=checked, role=role
        )

    def _deployed(
        self, deployer: Deployer, group: str, record: GroupRecord, action: str, actor: str | None
    ) -> Deployment:
        """The deployment to give back; plugins are told of it where an actor changed something."""
        pointer = record.pointer
        assert pointer is not None  # noqa: S101 - an edit always makes one
        if isinstance(deployer, CanRunDevices):
            deployer.run_devices()
        deployment = Deployment(
            self.group_status,
            promote=self.promote,
            cancel=self.cancel,
            group=f"{deployer.name}/{group}",
            pair=pointer.pair,
            release=record.candidate or pointer.current,
            action=action,
        )
        if actor is not None:
            discovery.notify_deployed(self.profile.listeners(), deployment, actor)
        return deployment

    # What happened

    def group_status(self, group: str) -> GroupStatus:
        """A group now: each device judged by its own report against the newest pointer."""
        deployer, name = self._services.find_group(group)
        record = self._groups.record(deployer, name)
        now = datetime.now(UTC)
        freshness = deployer.limits.freshness_s
        release = self._groups.release(record.current) if record.pointer is not None else None
        return GroupStatus(
            group=f"{deployer.name}/{name}",
            number=record.pointer.number if record.pointer is not None else 0,
            release=record.current if record.pointer is not None else None,
            models=() if release is None else names_of(release),
            candidate=record.candidate,
            published=deployer.pointer(name) == record.pointer,
            devices=judge_all(
                deployer.devices(name), record.pointer, now=now, freshness_s=freshness
            ),
            read_at=now,
            freshness_s=freshness,
        )

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
        deployer, info = held.deployer, held.info
        record = self._groups.record(deployer, info.group)
        pointer = record.pointer
        wanted = None if pointer is None else self._groups.release(pointer.release_for(device))
        status = judge(
            info, pointer, now=datetime.now(UTC), freshness_s=deployer.limits.freshness_s
        )
        return explain(
            info,
            status,
            group=f"{deployer.name}/{info.group}",
            wanted=wanted,
            pointer=pointer,
            on_channel=deployer.pointer(info.group),
        )

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


def current_actor() -> str:
    """Who acts: what EDGEFLEET_ACTOR says, or else the user of this process."""
    named = os.environ.get(ACTOR_VARIABLE)
    if named:
        return named
    try:
        return getpass.getuser()
    except OSError:
        return "unknown"
