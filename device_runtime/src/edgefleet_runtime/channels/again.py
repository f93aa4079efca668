"""When a channel that is told of changes reads them again, because it may have missed one.

It does so when it is told or woken, at the latest after some time, and after a failure when
`RetryTimer` says so.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet_runtime.retry import RetryTimer

if TYPE_CHECKING:
    from collections.abc import Iterator


class ReadAgain:
    """Tells when to read; `wake` may be called by any thread.

    Args:
        every_s: seconds after which it is read without being told.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._woken = threading.Event()
        self._told = True
        self._read_at = 0.0
        self._retry = RetryTimer(time.monotonic)

    def wake(self) -> None:
        """Make the `wait` in progress, or else the next one, return True."""
        self._woken.set()

    def tell(self) -> None:
        """Something may have changed: wake, and be `due`."""
        self._told = True
        self.wake()

    @property
    def due(self) -> bool:
        """Whether reading would find something new, as far as can be known here."""
        again = self._retry.due_in_s()
        if again is not None:
            return again <= 0
        return self._told or time.monotonic() >= self._read_at + self._every_s

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is time to read; False when that is not so after ``timeout_s`` seconds."""
        left = self._read_at + self._every_s - time.monotonic()
        again = self._retry.due_in_s()
        if again is not None:
            left = min(left, again)
        if self._woken.wait(max(0.0, min(timeout_s, left))) or left <= timeout_s:
            self._woken.clear()
            return True
        return False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Stand around the reading; what it raises makes it due again after a pause."""
        self._read_at = time.monotonic()
        self._told = False
        self._retry.cancel()
        try:
            yield
        except EdgeFleetError:
            self._retry.wait()  # an agent that restarts is back soon
            raise
        self._retry.reset()
