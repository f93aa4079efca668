"""Devices that join by themselves: an operator invites one, and it shows the token once."""

from __future__ import annotations

from abc import abstractmethod
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, final

from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.service import Service
from edgefleet.protocol.labels import check_labels
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping

LASTS = timedelta(hours=1)
LONGEST = timedelta(days=30)


class Invitation(NamedTuple):
    """What makes one device part of the fleet, once.

    Attributes:
        device: the name that it will have.
        group: its group.
        command: to paste on the device; it holds the token, so show it to nobody else.
        token: as in the command.
        ends: after this it is refused.
    """

    device: str
    group: str
    command: str
    token: str
    ends: datetime

    def __repr__(self) -> str:
        """Without what is secret: a notebook keeps what it shows."""
        ends = self.ends.isoformat()
        return f"<invitation of {self.device} into {self.group} until {ends}: see its command>"

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return self._asdict() | {"ends": self.ends.isoformat()}


class CanInvite(Service):
    """A device that knows no cloud can join by a command with a token that is used once."""

    @final
    def invite(
        self,
        device: str,
        *,
        group: str,
        labels: Mapping[str, str] | None = None,
        lasts: timedelta = LASTS,
        replace: bool = False,
    ) -> Invitation:
        """Make a device part of the fleet, and a token with which it proves to be it.

        Args:
            device: its name.
            group: its group; made if there is none yet.
            labels: of the device.
            lasts: how long the token may be used.
            replace: a machine takes the place of one that has that name: what that one was given
                is revoked when the new one comes.

        Raises:
            AlreadyExistsError: a machine has that name, and ``replace`` wasn't said.
            ConflictError: the device is in another group.
            InvalidInputError: a label isn't as `edgefleet.protocol.labels` bounds them.
        """
        check_name("device", device)
        check_name("group", group)
        check_labels(labels or {})
        if not timedelta(minutes=1) <= lasts <= LONGEST:
            raise InvalidInputError(
                f"a token can't last {lasts / timedelta(hours=1):.3g} hours",
                cure="give it a minute at least, 30 days at most",
            )
        with self._boundary("invite"):
            return self._invite(device, group, dict(labels or {}), lasts, replace)

    @final
    def revoke(self, device: str) -> None:
        """Take a device's identity away, at once: it goes on serving and syncs no more.

        It stays in its group; an invitation with ``replace`` lets it, or another machine, come
        back. The same again changes nothing.

        Raises:
            NotFoundError: no such device.
        """
        check_name("device", device)
        with self._boundary("revoke"):
            self._revoke(device)

    @abstractmethod
    def _invite(
        self,
        device: str,
        group: str,
        labels: dict[str, str],
        lasts: timedelta,
        replace: bool,  # noqa: FBT001 - ours alone calls it
    ) -> Invitation: ...

    @abstractmethod
    def _revoke(self, device: str) -> None: ...
