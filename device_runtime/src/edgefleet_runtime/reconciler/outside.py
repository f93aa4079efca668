"""What the reconciler knows of the outside: the latest pointer, and whether sources let it read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, AccessExpiredError, EdgeFleetError
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.report import AccessReport
from edgefleet_runtime.store.addresses import sources_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet.protocol.pointer import Pointer
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.store.sources import Source


class Outside:
    """A channel as the reconciler sees it.

    Args:
        channel: where pointer and access come from.
        now: the device's clock.
    """

    def __init__(
        self, channel: Channel, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.lag_s: float | None = None
        """Seconds from when the last pointer was issued until it was seen here, by two clocks;
        None before one came while this process ran."""
        self.live = False
        """Whether the channel has been looked at; before, nothing may depend on it."""
        self._channel = channel
        self._said = AccessReport()
        self._met: AccessReport | None = None
        self._taken: bytes | None = None
        self._seen: bytes | None = None
        self._now = now

    @property
    def given(self) -> bool:
        """Whether the channel has ever shown a pointer while this process ran, good or not."""
        return self._seen is not None

    @property
    def told(self) -> bool:
        """Whether the channel said what the fleet asks for, and that was followed or refused."""
        return self.live and self._seen == self._taken

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
        data = self._channel.pointer()
        if data is not None and data != self._seen and self.live:
            self._measure(data)
        self._seen, self.live = data or self._seen, True
        before, self._said = self._said, self._channel.access()
        renewed = self._said.state == "ok" and before.state != "ok"
        return (data if data != self._taken else None), renewed

    def _measure(self, pointer: bytes) -> None:
        """Take the time that a pointer took; what was there at the first look isn't measured."""
        try:
            issued = read_pointer(pointer).issued
        except EdgeFleetError:
            return
        self.lag_s = max(0.0, round((self._now() - issued).total_seconds(), 3))

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
        told = pointer.sources if pointer else ()
        return sources_for((*self._channel.addresses(), *told), self._channel.source)

    def refused(self, error: AccessDeniedError) -> None:
        """Remember that a source refused, until `forgive`."""
        expired = isinstance(error, AccessExpiredError)
        self._met = AccessReport(state="expired" if expired else "denied", detail=error.message)

    def forgive(self) -> None:
        """Forget what sources did: they are asked again."""
        self._met = None
