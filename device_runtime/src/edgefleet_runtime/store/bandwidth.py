"""A limit of bandwidth that any number of transfers share."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNKS_A_SECOND = 8  # so that a slow link is used evenly, not in bursts
LEAST_CHUNK_BYTES = 1024


class Bandwidth:
    """Tells each transfer how long to pause after what it received or sent.

    Bytes take their time on a common line, one after the other; nothing is saved up while nobody
    transfers, so the limit holds over any period, but for one chunk a transfer.

    Args:
        bytes_per_s: the limit.
        clock: monotonic seconds.
    """

    def __init__(self, bytes_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = clock()
        self._lock = threading.Lock()

    @property
    def chunk_bytes(self) -> int:
        """Most bytes that a transfer should take before it asks."""
        return max(LEAST_CHUNK_BYTES, self.bytes_per_s // CHUNKS_A_SECOND)

    def spend(self, count: int) -> float:
        """Take note of ``count`` bytes; returns seconds to pause before the next ones."""
        with self._lock:
            now = self._clock()
            self._free_at = max(self._free_at, now) + count / self.bytes_per_s
            return self._free_at - now


def open_plain(path: Path) -> BinaryIO:
    """A file that is read as fast as it can be."""
    return path.open("rb")


class PacedFile(io.FileIO):
    """A file that is read in small pieces, each no sooner than it may be.

    Args:
        path: the file.
        chunk_bytes: most that one `read` gives.
        taken: told how many bytes were read; waits before it returns, or raises to break off.
    """

    def __init__(self, path: Path, chunk_bytes: int, taken: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._chunk_bytes = chunk_bytes
        self._taken = taken

    def read(self, size: int | None = -1, /) -> bytes:
        """At most a chunk; empty at the end."""
        asked = self._chunk_bytes if size is None or size < 0 else min(size, self._chunk_bytes)
        data = super().read(asked) or b""
        if data:
            self._taken(len(data))
        return data
