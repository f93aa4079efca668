"""What is in the fleet, and what comes and goes: enrol, invite, revoke, retire."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from edgefleet.capabilities import require
from edgefleet.devices import Device
from edgefleet.errors import ConflictError, NotFoundError
from edgefleet.interfaces.abilities import CanEnroll, CanRemoveGroups
from edgefleet.interfaces.inviting import LASTS, CanInvite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.groups import GroupEditor
    from edgefleet.interfaces.deployer import Deployer
    from edgefleet.interfaces.inviting import Invitation
    from edgefleet.interfaces.values import DeviceInfo
    from edgefleet.services import Services


class Membership:
    """The part of a fleet that takes devices in and lets them go."""

    _services: Services
    _groups: GroupEditor

    def device(self, name: str) -> Device:
        """A device by name, to look at it or send it a request.

        Raises:
            NotFoundError: no deployer knows it.
        """
        for deployer in self._services.deployers.values():
            try:
                info = deployer.device(name)
                return Device(deployer, info, registry=lambda: self._services.registry)
            except NotFoundError:
                continue
        msg = f"no device {name!r} in the fleet"
        raise NotFoundError(msg, cure="list the devices with: edgefleet devices")

    def enroll(
        self, device: str, *, group: str, labels: Mapping[str, str] | None = None
    ) -> DeviceInfo:
        """Add a device to a group, made if need be, where the deployer can do that from here."""
        deployer, name = self._home(device, group)
        return require(deployer, CanEnroll).enroll(device, group=name, labels=labels)

    def can_invite(self, group: str) -> bool:
        """Whether a device joins this group by itself, with an invitation.

        Args:
            group: ``group`` or ``deployer/group``; there may be none yet.
        """
        deployer, _ = self._services.find_group(group, must_exist=False)
        return isinstance(deployer, CanInvite)

    def invite(
        self,
        device: str,
        *,
        group: str,
        labels: Mapping[str, str] | None = None,
        lasts: timedelta = LASTS,
        replace: bool = False,
    ) -> Invitation:
        """Make a command that makes the machine on which it is pasted a device; see `CanInvite`.

        Args:
            device: its name.
            group: ``group`` or ``deployer/group``; made if there is none yet.
            labels: of the device.
            lasts: how long the command may be used.
            replace: the machine takes the place of the one that has this name now.

        Raises:
            AlreadyExistsError: a machine has that name, and ``replace`` wasn't said.
            ConflictError: the device is in another group.
            UnsupportedError: the group's channel enrols devices in another way.
        """
        deployer, name = self._home(device, group)
        inviting = require(deployer, CanInvite)
        return inviting.invite(device, group=name, labels=labels, lasts=lasts, replace=replace)

    def revoke(self, device: str) -> None:
        """Have a device sync no more, at once; it goes on serving. See `CanInvite.revoke`.

        Raises:
            NotFoundError: no deployer knows it.
            UnsupportedError: its channel knows devices in another way.
        """
        require(self.device(device).deployer, CanInvite).revoke(device)

    def retire(self, device: str) -> None:
        """Take a device out of the fleet."""
        require(self.device(device).deployer, CanEnroll).retire(device)

    def remove_group(self, group: str) -> None:
        """Take a group without devices out of the fleet, with what was done to it.

        A group made later by that name begins anew. Whatever other groups run stays.

        Args:
            group: ``group`` or ``deployer/group``.

        Raises:
            NotFoundError: no such group.
            ConflictError: it has devices.
            UnsupportedError: its deployer removes none: a group is what its devices are marked
                with, or the vendor's own.
        """
        deployer, name = self._services.find_group(group)
        require(deployer, CanRemoveGroups).remove_group(name)
        self._groups.forget(deployer, name)

    def _home(self, device: str, group: str) -> tuple[Deployer, str]:
        """The deployer and name of a group that a device may come into.

        Raises:
            ConflictError: another deployer has the device.
        """
        deployer, name = self._services.find_group(group, must_exist=False)
        for other in self._services.deployers.values():
            if other is not deployer and _has(other, device):
                msg = f"device {device!r} is in a group of {other.name}"
                cure = "a device is in one group of a fleet: retire it there first"
                raise ConflictError(msg, cure=cure, retryable=False)
        return deployer, name


def _has(deployer: Deployer, device: str) -> bool:
    """Whether a deployer knows a device; asked for by its name, for a fleet may have thousands."""
    try:
        deployer.device(device)
    except NotFoundError:
        return False
    return True
