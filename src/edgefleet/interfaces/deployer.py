"""Deployer: brings a pointer to a group's devices and their reports back.

What to deploy, numbers, plans, rollback and judgement live in ``edgefleet.fleet`` and
``edgefleet.rollout``, once for all backends. A deployer only knows its channel: which devices are
in which group, how a pointer gets to them, what they said.

Rules for every backend:

- `_publish` refuses a pointer that is lower than the one in place, and leaves foreign documents
  alone.
- A report is attributed to the device whose authenticated channel it came by, never by its content.
- `_render` and `_publish` agree: publishing writes exactly what was rendered.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar, final

from edgefleet.errors import (
    ConflictError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
)
from edgefleet.interfaces.abilities import CanPace
from edgefleet.interfaces.policy import problems_of
from edgefleet.interfaces.service import Service
from edgefleet.interfaces.values import DeviceInfo, Group, Rendered, Value
from edgefleet.protocol.labels import check_labels
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet.interfaces.policy import RolloutPolicy
    from edgefleet.protocol.pointer import Pointer


class Limits(Value):
    """What a channel can carry.

    Attributes:
        groups: how many groups it can hold; None for no limit.
        freshness_s: how old a status may be at worst while a device is connected, in seconds.
    """

    groups: int | None = None
    freshness_s: float = 5.0


class Deployer(Service):
    """Groups, devices, pointers, reports."""

    role: ClassVar[str] = "deployer"
    name: str
    """Name of this deployer in the profile: the first part of a group's reference."""

    @property
    def limits(self) -> Limits:
        """What this channel can carry."""
        return Limits()

    @final
    def groups(self) -> tuple[Group, ...]:
        """All groups of this fleet, sorted by name."""
        with self._boundary("groups"):
            return tuple(sorted(self._groups(), key=lambda group: group.name))

    @final
    def group(self, name: str) -> Group:
        """A group by its bare name.

        Raises:
            NotFoundError: no such group; the message lists those there are.
        """
        check_name("group", name)
        with self._boundary("group"):
            found = self._group(name)
        if found is None:
            msg = f"no group {name!r} on {self.name}"
            there = ", ".join(group.name for group in self.groups())
            raise NotFoundError(
                msg, cure=f"groups there are: {there or 'none yet; enrol a device into one'}"
            )
        return found

    @final
    def devices(
        self, group: str | None = None, *, labels: Mapping[str, str] | None = None
    ) -> Iterator[DeviceInfo]:
        """Devices, of one group or all, that carry all the labels given, by name.

        One by one, while the backend lists them: nothing is asked before the first is wanted.
        """
        wanted = dict(labels or {}).items()
        for device in self._bounded("devices", lambda: self._devices(group)):
            if wanted <= device.labels.items():
                yield device

    @final
    def device(self, name: str) -> DeviceInfo:
        """A device by name.

        Raises:
            NotFoundError: no such device.
        """
        check_name("device", name)
        with self._boundary("device"):
            found = self._device(name)
        if found is None:
            msg = f"no device {name!r} on {self.name}"
            raise NotFoundError(msg, cure="list the devices with: edgefleet devices")
        return found

    @final
    def label(self, device: str, labels: Mapping[str, str | None]) -> DeviceInfo:
        """Set labels of a device; None removes one. Labels never decide delivery.

        Raises:
            InvalidInputError: one isn't as `edgefleet.protocol.labels` bounds them.
        """
        self.device(device)
        check_labels(labels)
        with self._boundary("label"):
            self._label(device, labels)
        return self.device(device)

    @final
    def pointer(self, group: str) -> Pointer | None:
        """The pointer in place on the group's channel; None before the first."""
        check_name("group", group)
        with self._boundary("pointer"):
            return self._pointer(group)

    @final
    def render(
        self, group: str, pointer: Pointer, *, policy: RolloutPolicy | None = None
    ) -> tuple[Rendered, ...]:
        """Every document that publishing would put in place. Sends nothing.

        Raises:
            LimitExceededError: the channel can't hold another group.
        """
        self._check_limits(group)
        pacer = None if policy is None else self.honouring(policy)
        with self._boundary("render"):
            if pacer is None or policy is None:
                return tuple(self._render(group, pointer))
            return tuple(pacer._render_paced(group, pointer, policy))  # noqa: SLF001 - this deployer

    @final
    def warnings(self, group: str, pointer: Pointer) -> tuple[str, ...]:
        """What a person should know before this pointer is published. Sends nothing."""
        with self._boundary("warnings"):
            return tuple(self._warnings(group, pointer))

    @final
    def publish(self, group: str, pointer: Pointer, *, policy: RolloutPolicy | None = None) -> None:
        """Put a pointer on a group's channel. The same pointer again changes nothing.

        Args:
            group: its bare name.
            pointer: what to put there.
            policy: how it reaches the devices; None for the way of the channel.

        Raises:
            ConflictError: a higher pointer is in place.
            LimitExceededError: the channel can't hold another group.
            UnsupportedError: the channel can't honour the policy.
        """
        pacer = None if policy is None else self.honouring(policy)
        self._check_limits(group)
        with self._boundary("publish"):
            there = self._held(group)
            if there is not None and there.pair > pointer.pair:
                msg = f"{group} holds pointer {there.pair}, which is above {pointer.pair}"
                raise ConflictError(msg, cure="read the group again and repeat")
            if there == pointer:
                return
            if pacer is None or policy is None:
                self._publish(group, pointer)
            else:
                pacer._publish_paced(group, pointer, policy)  # noqa: SLF001 - this deployer

    @final
    def honouring(self, policy: RolloutPolicy) -> CanPace:
        """This deployer, as one that holds rollouts to that policy.

        Raises:
            UnsupportedError: it can't honour it.
        """
        if not isinstance(self, CanPace):
            msg = f"{self.name} can't hold a rollout to a policy"
            cure = "deploy without one; to go by steps, give it to a cohort first, then promote it"
            raise UnsupportedError(msg, cure=cure, provider=self.provider)
        problems = problems_of(policy, self.policy_limits)
        if problems:
            msg = f"{self.name} can't honour the policy: {'; '.join(problems)}"
            raise UnsupportedError(
                msg, cure="change what the message names", provider=self.provider
            )
        return self

    def _check_limits(self, group: str) -> None:
        self.group(group)
        limit = self.limits.groups
        if limit is None:
            return
        count = len(self.groups())
        if count > limit:
            msg = f"{self.name} holds at most {limit} groups, the fleet has {count}"
            raise LimitExceededError(msg, cure="merge groups, or add a deployer to the profile")

    @abstractmethod
    def _groups(self) -> Iterator[Group]: ...

    def _group(self, name: str) -> Group | None:
        """A group by its name; backends that needn't list all for it override this."""
        return next((group for group in self._groups() if group.name == name), None)

    @abstractmethod
    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        """Devices in order of their names, reports included."""

    def _device(self, name: str) -> DeviceInfo | None:
        return next((device for device in self._devices(None) if device.name == name), None)

    @abstractmethod
    def _label(self, device: str, labels: Mapping[str, str | None]) -> None: ...

    @abstractmethod
    def _pointer(self, group: str) -> Pointer | None: ...

    def _held(self, group: str) -> Pointer | None:
        """The pointer that a new one is held against before anything is sent.

        Backends that carry a group's pointer in several places, and hold it against each of them
        themselves, give None where they can't read all: one that is away stops no other.
        """
        return self._pointer(group)

    @abstractmethod
    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]: ...

    def _warnings(self, group: str, pointer: Pointer) -> Iterator[str]:
        """What publishing does besides; channels that only carry pointers have nothing to say."""
        return iter(())

    @abstractmethod
    def _publish(self, group: str, pointer: Pointer) -> None: ...
