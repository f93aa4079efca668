"""One of the two ways out, hot or cold: what is under way, when to try again, how much at once.

A lane's work runs in a thread of its own on a device, because a call to a channel may take hours.
The thread that owns the store gives it work and hears how it went; it never waits.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Literal

from edgefleet.errors import AccessDeniedError, CancelledError, EdgeFleetError, ThrottledError
from edgefleet_runtime.retry import LONGEST_ASKED_S, RetryTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[[str, Callable[[], None]], None]
    """Runs work, given a name for it."""

_log = logging.getLogger(__name__)

Why = Literal["span", "metered", "access", "link"]
"""What telemetry waits for: a time of day, a link that costs nothing, somebody to renew access,
the other side."""


def at_once(name: str, work: Callable[[], None]) -> None:
    """Do work before anything else."""
    del name
    work()


def in_thread(name: str, work: Callable[[], None]) -> None:
    """Run work in a thread that ends with the process, however long the work takes."""
    threading.Thread(target=work, name=name, daemon=True).start()


class Stride:
    """How much goes at once: twice as much after each success, half after each failure.

    So a link that never holds for long gets small pieces through, and the newest alarm is in the
    first small one.

    Args:
        least: bytes to begin with, and to fall back to.
        most: bytes never to exceed.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least, self.most = least, most
        self._bytes = least

    @property
    def bytes(self) -> int:
        """How much should go next."""
        return min(self._bytes, self.most)

    def succeeded(self) -> None:
        """Try more the next time."""
        self._bytes = min(self._bytes * 2, max(self._least, self.most))

    def failed(self) -> None:
        """Try less."""
        self._bytes = max(self._bytes // 2, self._least)


class Lane:
    """Work of one kind, one piece after the other.

    Args:
        name: of its threads.
        stride: how much goes at once.
        clock: monotonic seconds.
        start: runs work.
        moved: called by that thread when the work has ended.
    """

    def __init__(
        self,
        name: str,
        stride: Stride,
        *,
        clock: Callable[[], float],
        start: Start,
        moved: Callable[[], None],
    ) -> None:
        self.stride = stride
        self.why: Why | None = None
        """Why the last piece of work failed; None where it didn't."""
        self._name, self._start, self._moved = name, start, moved
        self._retry = RetryTimer(clock)
        self._busy = False
        self._error: Exception | None = None
        self._ended = threading.Event()

    @property
    def busy(self) -> bool:
        """Whether work is under way, or has ended and `settle` wasn't called."""
        return self._busy

    @property
    def ended(self) -> bool:
        """Whether work has ended that `settle` hasn't heard of."""
        return self._busy and self._ended.is_set()

    @property
    def free(self) -> bool:
        """Whether work may begin now."""
        return not self._busy and not self._retry.due_in_s()

    def begin(self, work: Callable[[], None]) -> None:
        """Do this; its errors are kept for `settle`."""
        self._busy, self._error = True, None
        self._ended.clear()

        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - told in the other thread
                self._error = error
            self._ended.set()
            self._moved()

        try:
            self._start(self._name, run)
        except RuntimeError as error:  # no thread is to be had now: it is tried again as any work
            self._error = error
            self._ended.set()

    def settle(self, *, progress: bool = False) -> bool:
        """Take note of work that has ended, if it has; returns whether it went well.

        Args:
            progress: some of it was taken: if it failed after that, the next pause is a short one.
        """
        if not self.ended:
            return False
        self._busy = False
        error = self._error
        if error is None:
            self.why = None
            self.stride.succeeded()
            self._retry.reset()
            return True
        if isinstance(error, CancelledError):  # by ourselves: the reason is ours to tell
            return False
        if isinstance(error, (EdgeFleetError, OSError)):
            _log.info("%s: telemetry waits: %s", self._name, error)
        else:
            _log.error("%s", self._name, exc_info=error)
        self.why = "access" if isinstance(error, AccessDeniedError) else "link"
        self.stride.failed()
        if progress:
            self._retry.reset()
        asked_s = error.retry_after_s if isinstance(error, ThrottledError) else None
        self._retry.wait(at_least_s=min(asked_s or 0.0, LONGEST_ASKED_S))
        return False

    def hasten(self) -> None:
        """Try at once what would wait for another try."""
        self._retry.reset()
