"""What the reconciler knows of the outside: the latest pointer, and whether sources let it read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, AccessExpiredError
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.store.addresses import sources_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.protocol.pointer import Pointer
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.store.sources import Source


class Outside:
    """A channel as the reconciler sees it.

    Args:
        channel: where pointer and access come from.
    """

    def __init__(self, channel: Channel) -> None:
        self.live = False
        """Whether the channel has been looked at; before, nothing may depend on it."""
        self._channel = channel
        self._said = AccessReport()
        self._met: AccessReport | None = None
        self._taken: bytes | None = None

    @property
    def access(self) -> AccessReport:
        """What the channel says or, where it says nothing against it, what a source did last."""
        return self._met if self._met is not None and self._said.state == "ok" else self._said

    def look(self) -> tuple[bytes | None, bool]:
        """See what has changed.

        Returns:
            A pointer that `take` wasn't told of, if there is one; and whether access was renewed.

        Raises:
            EdgeFleetError: the channel can't tell.
        """
        self.live = True
        data = self._channel.pointer()
        before, self._said = self._said, self._channel.access()
        renewed = self._said.state == "ok" and before.state != "ok"
        return (data if data != self._taken else None), renewed

    def take(self, pointer: bytes) -> None:
        """Not to be shown this pointer again: it was followed or refused."""
        self._taken = pointer

    def sources(self, pointer: Pointer | None) -> Sequence[Source]:
        """The sources of a pointer; called when bytes are really missing.

        Raises:
            AccessExpiredError: the channel says that they would refuse.
            UnsupportedError: nobody here can read any of them.
        """
        self._said = self._channel.access()
        if self._said.state == "expired":
            raise AccessExpiredError(
                f"access to the sources has expired: {self._said.detail or 'no detail'}",
                cure="renew the device's access",
            )
        return sources_for(pointer.sources if pointer else (), self._channel.source)

    def refused(self, error: AccessDeniedError) -> None:
        """Remember that a source refused, until `forgive`."""
        expired = isinstance(error, AccessExpiredError)
        self._met = AccessReport(state="expired" if expired else "denied", detail=error.message)

    def forgive(self) -> None:
        """Forget what sources did: they are asked again."""
        self._met = None
