"""What the ways to pull have in common in which a poller brings the pointer."""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import TYPE_CHECKING

from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.pull.polling import News, Poller
from edgefleet_runtime.channels.pull.standing import Standing

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from edgefleet.protocol.report import AccessReport
    from edgefleet_runtime.channels.pull.polling import Start

MOST_BYTES = 64 << 10  # of what is read as a pointer: whether it is one, the reconciler says


class PolledChannel(Channel):
    """A channel that asks for its pointer again and again.

    Args:
        remark: what is to be said beside its access; None for nothing.
        wait_s: seconds that the other side is asked to wait for news; 0 for not.
        poll_s: seconds between two calls where it doesn't wait and names no other.
        clock: monotonic seconds.
        jitter: source of chance.
        start: runs the polling.
    """

    def __init__(
        self,
        *,
        remark: Callable[[], str | None],
        wait_s: float,
        poll_s: float,
        clock: Callable[[], float],
        jitter: random.Random | None,
        start: Start,
    ) -> None:
        self._woken = threading.Event()
        self._standing = Standing(self._woken.set, remark=remark)
        self.poller = Poller(
            self._poll,
            self._standing,
            self._woken.set,
            wait_s=wait_s,
            poll_s=poll_s,
            clock=clock,
            jitter=jitter,
            start=start,
        )

    @abstractmethod
    def _poll(self, held: News, wait_s: float) -> News:
        """Make one call; see `Poller`."""

    def pointer(self) -> bytes | None:
        return self.poller.held

    def access(self) -> AccessReport:
        return self._standing.report()

    def wait(self, timeout_s: float) -> bool:
        if self._woken.wait(timeout_s):
            self._woken.clear()
            return True
        return False

    def wake(self) -> None:
        self._woken.set()
