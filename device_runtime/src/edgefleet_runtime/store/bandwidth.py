"""A limit of bandwidth that any number of transfers share."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNKS_A_SECOND = 8  # so that a slow link is used evenly, not in bursts
LEAST_CHUNK_BYTES = 4096


class Bandwidth:
    """Tells each transfer how long to pause after what it received.

    Received bytes take their time on a common line, one after the other; nothing is saved up while
    nobody transfers, so the limit holds over any period, but for one chunk a transfer.

    Args:
        bytes_per_s: the limit.
        clock: monotonic seconds.
    """

    def __init__(self, bytes_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = clock()
        self._lock = threading.Lock()

    @property
    def chunk_bytes(self) -> int:
        """Most bytes that a transfer should receive before it asks."""
        return max(LEAST_CHUNK_BYTES, self._bytes_per_s // CHUNKS_A_SECOND)

    def spend(self, count: int) -> float:
        """Take note of ``count`` bytes received; returns seconds to pause before the next ones."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + count / self._bytes_per_s
            return self._free_at - now
