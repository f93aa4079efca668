"""The services of a profile, built when first used, and finding groups in them by name."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgefleet.errors import AmbiguousReferenceError, NotFoundError, ProfileError
from edgefleet.plugins import discovery
from edgefleet.plugins.provider import Context, Role
from edgefleet.profile import Profile, first_problem
from edgefleet.protocol.names import check_group

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.service import Service
    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.telemetry import Telemetry
    from edgefleet.interfaces.trainer import Trainer
    from edgefleet.interfaces.values import Group


class Services:
    """What serves a profile's roles. Nothing is imported or contacted before it is used."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._built: list[Service] = []

    def close(self) -> None:
        """Release connections and processes of every service; may be called twice."""
        for service in reversed(self._built):
            service.close()
        self._built.clear()

    @cached_property
    def state(self) -> StateStore:
        """The profile's state store."""
        store: StateStore = self._build(Role.STATE, self.profile.provider_of("state"))
        return store

    @cached_property
    def registry(self) -> Registry:
        """The profile's registry."""
        registry: Registry = self._build(Role.REGISTRY, self.profile.provider_of("registry"))
        return registry

    @cached_property
    def trainer(self) -> Trainer:
        """The profile's trainer."""
        trainer: Trainer = self._build(Role.TRAINER, self.profile.provider_of("trainer"))
        return trainer

    @cached_property
    def telemetry(self) -> Telemetry:
        """The profile's telemetry."""
        telemetry: Telemetry = self._build(Role.TELEMETRY, self.profile.provider_of("telemetry"))
        return telemetry

    @cached_property
    def deployers(self) -> Mapping[str, Deployer]:
        """The profile's deployers by name."""
        names = self.profile.deployer_names()
        if not names:
            msg = f"profile {self.profile.name!r} names no deployer"
            cure = f'add  deployers = ["…"]  to [profiles.{self.profile.name}]'
            raise ProfileError(msg, cure=cure)
        return {name: self._build(Role.DEPLOYER, name) for name in names}

    def groups(self) -> tuple[Group, ...]:
        """Groups of all deployers."""
        return tuple(group for d in self.deployers.values() for group in d.groups())

    def find_group(self, given: object, *, must_exist: bool = True) -> tuple[Deployer, str]:
        """The deployer and bare name that ``group`` or ``deployer/group`` means.

        Raises:
            InvalidInputError: it is no text, such as a list of devices.
            NotFoundError: there is no such deployer or group.
            AmbiguousReferenceError: several deployers have a group of that bare name.
        """
        reference = check_group(given)
        first, slash, rest = reference.partition("/")
        if slash:
            if first not in self.deployers:
                msg = f"no deployer {first!r} in profile {self.profile.name!r}"
                raise NotFoundError(msg, cure=f"deployers there are: {', '.join(self.deployers)}")
            return self._checked(self.deployers[first], rest, must_exist=must_exist)
        if len(self.deployers) == 1:
            only = next(iter(self.deployers.values()))
            return self._checked(only, reference, must_exist=must_exist)
        found = [d for d in self.deployers.values() if reference in {g.name for g in d.groups()}]
        if len(found) == 1:
            return found[0], reference
        if not found:
            msg = f"no group {reference!r}"
            there = ", ".join(group.reference for group in self.groups()) or "none yet"
            raise NotFoundError(msg, cure=f"groups there are: {there}; write DEPLOYER/NAME")
        names = ", ".join(f"{d.name}/{reference}" for d in found)
        msg = f"group {reference!r} is ambiguous"
        raise AmbiguousReferenceError(msg, cure=f"write one of {names}")

    @staticmethod
    def _checked(deployer: Deployer, group: str, *, must_exist: bool) -> tuple[Deployer, str]:
        if must_exist:
            deployer.group(group)
        return deployer, group

    def _build(self, role: Role, name: str) -> Any:  # noqa: ANN401 - the caller knows the role
        provider = discovery.provider(name)
        table = self.profile.settings.get(name, {})
        try:
            settings = provider.settings_type.model_validate(table)
        except ValidationError as error:
            where = f"[profiles.{self.profile.name}.{name}]"
            msg = f"{where}: {first_problem(error)}"
            cure = f"mend that key in the profile; its keys: edgefleet providers {name}"
            raise ProfileError(msg, cure=cure, provider=name) from error
        context = Context(
            base=self.profile.base,
            name=name,
            state=lambda: self.state,
            registry=lambda: self.registry,
        )
        service = discovery.service_of(provider, role, settings, context)
        self._built.append(service)
        return service
