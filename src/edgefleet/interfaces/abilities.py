"""Optional operations, one mixin each: whether a backend can do a thing is its type.

Ask with ``edgefleet.capabilities.require(backend, CanInvoke)``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple, final

from edgefleet.errors import ConflictError
from edgefleet.interfaces.access import CanRenewAccess
from edgefleet.interfaces.automation import CanAutomate
from edgefleet.interfaces.compilation import CanCompile
from edgefleet.interfaces.inviting import CanInvite
from edgefleet.interfaces.receipts import CanTakeReceipts
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.interfaces.service import Service
from edgefleet.interfaces.upgrading import CanUpgradeRuntime
from edgefleet.protocol.labels import check_labels
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgefleet.interfaces.policy import PolicyLimits, RolloutPolicy, RolloutProgress
    from edgefleet.interfaces.values import DeviceInfo, Rendered
    from edgefleet.protocol.pointer import Pointer


class Reply(NamedTuple):
    """An HTTP answer as it came: status, header fields in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class CanInvoke(Service):
    """The operator can send a request to a device: to its endpoint, or an order.

    Paths of `edgefleet.protocol.orders` are orders. A backend carries them over the device's own
    channel, as the runtime follows nobody else's.
    """

    @final
    def invoke(
        self,
        device: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 30.0,
    ) -> Reply:
        """Carry one exchange to a device: Open Inference Protocol, or an order.

        Args:
            device: its name.
            path: such as ``/v2/models/digits/infer``.
            body: a POST with these bytes; None for a GET.
            headers: header fields of the request.
            timeout_s: give up after so many seconds.

        Raises:
            UnavailableError: the device doesn't answer.
        """
        check_name("device", device)
        with self._boundary("invoke"):
            return self._invoke(device, path, body, dict(headers or {}), timeout_s)

    @abstractmethod
    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply: ...


class CanEnroll(Service):
    """The operator can make a device part of the fleet from here."""

    @final
    def enroll(
        self, device: str, *, group: str, labels: Mapping[str, str] | None = None
    ) -> DeviceInfo:
        """Add a device to a group. The same again changes nothing.

        Raises:
            ConflictError: the device is in another group; a device is in exactly one.
            InvalidInputError: a label isn't as `edgefleet.protocol.labels` bounds them.
        """
        check_name("device", device)
        check_name("group", group)
        check_labels(labels or {})
        with self._boundary("enroll"):
            there = self._enrolled_group(device)
            if there is not None and there != group:
                msg = f"device {device!r} is in group {there!r}"
                cure = f"a device is in one group: retire it first to move it to {group!r}"
                raise ConflictError(msg, cure=cure, retryable=False)
            return self._enroll(device, group, dict(labels or {}))

    @final
    def retire(self, device: str) -> None:
        """Take a device out of the fleet; no error when it isn't in it."""
        check_name("device", device)
        with self._boundary("retire"):
            self._retire(device)

    @abstractmethod
    def _enrolled_group(self, device: str) -> str | None: ...

    @abstractmethod
    def _enroll(self, device: str, group: str, labels: dict[str, str]) -> DeviceInfo: ...

    @abstractmethod
    def _retire(self, device: str) -> None: ...


class CanRemoveGroups(Service):
    """A group lasts until the operator removes it here; elsewhere it goes with its last device."""

    @final
    def remove_group(self, group: str) -> None:
        """Take a group without devices out of the fleet, and its pointer off the channel.

        Raises:
            ConflictError: it has devices.
        """
        check_name("group", group)
        with self._boundary("remove_group"):
            left = self._remove_group(group)
        if left:
            there = ", ".join(left[:5]) + (", …" if len(left) > 5 else "")
            msg = f"group {group!r} has devices: {there}"
            cure = "retire them first: edgefleet device retire NAME"
            raise ConflictError(msg, cure=cure, retryable=False)

    @abstractmethod
    def _remove_group(self, group: str) -> Sequence[str]:
        """Remove a group; or leave it, and tell its devices, also one that came meanwhile."""


class CanInstall(Service):
    """The operator can prepare the backend's side: buckets, roles, runtime component."""

    @final
    def install(self, *, group: str | None = None) -> None:
        """Prepare everything, for one group or all. Idempotent."""
        with self._boundary("install"):
            self._install(group)

    @final
    def install_documents(self, *, group: str | None = None) -> tuple[Rendered, ...]:
        """What `install` would put in place. Sends nothing."""
        with self._boundary("install"):
            return tuple(self._install_documents(group))

    @final
    def uninstall(self, *, data: bool = False) -> None:
        """Take away what `install` made, and nothing else. Idempotent.

        Args:
            data: delete the fleet's models, state and recordings, too. Nothing brings them back.
        """
        with self._boundary("uninstall"):
            self._uninstall(data)

    @abstractmethod
    def _install(self, group: str | None) -> None: ...

    @abstractmethod
    def _install_documents(self, group: str | None) -> Iterator[Rendered]: ...

    @abstractmethod
    def _uninstall(self, data: bool) -> None: ...  # noqa: FBT001 - ours alone calls it


class Proof(NamedTuple):
    """Whether the identity in use may do one thing.

    Attributes:
        part: what it is needed for: a role of the profile, or ``install``.
        action: as the vendor names it.
        problem: why it may not, or why that wasn't tried; None when it may.
        tried: False where nothing harmless would tell.
    """

    part: str
    action: str
    problem: str | None = None
    tried: bool = True


class CanProve(Service):
    """The operator can learn whether they are allowed what this backend needs."""

    @final
    def proofs(self) -> Iterator[Proof]:
        """Try each permission with a call that changes nothing."""
        return self._bounded("proofs", self._proofs)

    @final
    def receiving_proofs(self) -> Iterator[Proof]:
        """Likewise what only whoever writes here for devices needs, such as their gateway."""
        return self._bounded("receiving_proofs", self._receiving_proofs)

    @abstractmethod
    def _proofs(self) -> Iterator[Proof]: ...

    def _receiving_proofs(self) -> Iterator[Proof]:
        return iter(())


class CanTrainDistributed(Service):
    """The trainer can run a script on several machines at once."""

    @property
    @abstractmethod
    def max_machines(self) -> int:
        """Most machines that one run may have; 1 where what runs several is missing."""


class CanStreamLogs(Service):
    """The operator can read a device's runtime log."""

    @final
    def device_log(self, device: str, *, last: int = 100) -> tuple[str, ...]:
        """The newest lines of a device's runtime log, oldest first."""
        check_name("device", device)
        with self._boundary("device_log"):
            return tuple(self._device_log(device, last))

    @abstractmethod
    def _device_log(self, device: str, last: int) -> Iterator[str]: ...


class CanRunDevices(Service):
    """The backend's devices are processes that it runs itself, as long as somebody asks it to."""

    @final
    def run_devices(self) -> None:
        """Have every device of the fleet run until `close`, and return at once.

        What needs devices, such as publishing, asks for them by itself. The same again changes
        nothing. Where another process runs them already, this one takes over when that one ends.
        """
        with self._boundary("run_devices"):
            self._run_devices()

    @abstractmethod
    def _run_devices(self) -> None: ...


class CanPace(Service):
    """The channel holds a rollout to a policy: its rate, when it stops, what failing devices do."""

    @property
    @abstractmethod
    def policy_limits(self) -> PolicyLimits:
        """What of a policy it honours."""

    @final
    def progress(self, group: str) -> RolloutProgress | None:
        """How far the channel is with a group's newest pointer; None before the first."""
        check_name("group", group)
        with self._boundary("progress"):
            return self._progress(group)

    @abstractmethod
    def _progress(self, group: str) -> RolloutProgress | None: ...

    @abstractmethod
    def _publish_paced(self, group: str, pointer: Pointer, policy: RolloutPolicy) -> None: ...

    @abstractmethod
    def _render_paced(
        self, group: str, pointer: Pointer, policy: RolloutPolicy
    ) -> Iterator[Rendered]: ...


ABILITIES: tuple[type[ABC], ...] = (
    CanInvoke,
    CanEnroll,
    CanRemoveGroups,
    CanInstall,
    CanProve,
    CanTrainDistributed,
    CanStreamLogs,
    CanRunDevices,
    CanAutomate,
    CanCompile,
    CanTakeReceipts,
    CanUpgradeRuntime,
    CanPace,
    CanRenewAccess,
    CanInvite,
    CanReceive,
)
