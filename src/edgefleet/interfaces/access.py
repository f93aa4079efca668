"""Access that ends: what devices read blobs and write segments with, renewed by the operator.

Some channels give devices an identity that storage knows; there is nothing to renew. On others a
device can get no new access by itself, and the operator's side gives it some in time. Such a
deployer is a `CanRenewAccess`. What is given is never shown: only what it is for, and when it ends.
"""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, final

from edgefleet.errors import NotFoundError
from edgefleet.interfaces.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class AccessKind(StrEnum):
    """What access is for."""

    READ = "read"
    """Blobs, by the devices of a group."""
    WRITE = "write"
    """Segments and captures, by each device below its own prefix."""


class AccessTerm(NamedTuple):
    """Access that was given, and when it ends.

    Attributes:
        kind: what it is for.
        group: whose devices have it; None for all devices of the deployer.
        ends: None where none is in place: it was never given, or was revoked.
        lasts: how long it would last if it were given now.
        renewed: whether it was given just now.
    """

    kind: AccessKind
    group: str | None
    ends: datetime | None
    lasts: timedelta
    renewed: bool = False

    def is_due(self, now: datetime, within: timedelta | None = None) -> bool:
        """Whether it is to be renewed.

        Args:
            now: the time.
            within: due is what ends within that; None for half of what it lasts.
        """
        left = self.lasts / 2 if within is None else within
        return self.ends is None or self.ends - now < left

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kind": self.kind.value,
            "group": self.group,
            "ends": None if self.ends is None else self.ends.isoformat(),
            "renewed": self.renewed,
        }


class CanRenewAccess(Service):
    """The operator's side gives devices their access, and renews it before it ends."""

    @final
    def access(self) -> tuple[AccessTerm, ...]:
        """What devices were given: of each group with a pointer, and of all for writing."""
        with self._boundary("access"):
            return tuple(self._access_terms())

    @final
    def renew_access(
        self,
        *,
        group: str | None = None,
        within: timedelta | None = None,
        step: Callable[[], None] = lambda: None,
    ) -> tuple[AccessTerm, ...]:
        """Renew what ends soon. The same again changes nothing.

        The pointer stays what it is. How many calls it takes grows with groups, not with devices.

        Args:
            group: only this one's; None for every group's, and what devices write with.
            within: what ends within that; None for half of what new access lasts.
            step: called after each.

        Raises:
            NotFoundError: the group has no pointer, so nothing to read.
        """
        with self._boundary("renew_access"):
            terms = [term for term in self._access_terms() if group in (None, term.group)]
            if not terms:
                msg = f"group {group!r} has no pointer yet"
                raise NotFoundError(msg, cure="deploy to it: its devices get access with that")
            done = []
            for term in terms:
                due = term.is_due(datetime.now(UTC), within)
                done.append(self._renew_access(term) if due else term)
                step()
            return tuple(done)

    @final
    def revoke_access(self, kind: AccessKind) -> None:
        """End all access of a kind that was ever given, at once; `renew_access` gives new.

        Args:
            kind: ``read`` for every group's; ``write`` for every device's, each of which is given
                another: that takes calls for each device.
        """
        with self._boundary("revoke_access"):
            self._revoke_access(kind)

    @abstractmethod
    def _access_terms(self) -> Iterator[AccessTerm]: ...

    @abstractmethod
    def _renew_access(self, term: AccessTerm) -> AccessTerm: ...

    @abstractmethod
    def _revoke_access(self, kind: AccessKind) -> None: ...
