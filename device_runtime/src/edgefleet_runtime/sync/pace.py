"""How fast files are read that a channel uploads, and when their upload is broken off.

Used by the thread that uploads, and told what is allowed by the one that owns the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from edgefleet.errors import CancelledError
from edgefleet_runtime.store.bandwidth import Bandwidth, PacedFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK_BYTES = 64 << 10  # read at once where there is no limit
SLICE_S = 1.0  # of a pause, after which it is looked whether to go on


class Pace:
    """Opens the files of uploads.

    Args:
        clock: monotonic seconds.
        pause: waits so many seconds, or less.
        refused: why an upload may not go on now; None when it may.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        pause: Callable[[float], object],
        refused: Callable[[], str | None],
    ) -> None:
        self.taken = 0
        """Bytes read by whoever uploads."""
        self._clock, self._pause, self._refused = clock, pause, refused
        self._limit: Bandwidth | None = None

    def limit(self, bytes_per_s: int | None) -> None:
        """Let so much go from now on; None for all that the link gives."""
        before = None if self._limit is None else self._limit.bytes_per_s
        if bytes_per_s != before:
            self._limit = None if bytes_per_s is None else Bandwidth(bytes_per_s, self._clock)

    def open(self, path: Path) -> BinaryIO:
        """A file to upload, read no faster than the limit.

        Raises:
            CancelledError: by what it gives, when it is read: the upload may not go on.
        """
        limit = self._limit
        return PacedFile(path, CHUNK_BYTES if limit is None else limit.chunk_bytes, self.spend)

    def spend(self, count: int) -> None:
        """Wait until so many bytes more have had their time.

        Raises:
            CancelledError: the upload may not go on.
        """
        self.taken += count
        limit = self._limit
        left = 0.0 if limit is None else limit.spend(count)
        self.check()
        while left > 0:
            self._pause(min(left, SLICE_S))
            left -= SLICE_S
            self.check()

    def check(self) -> None:
        """Go on only if an upload may.

        Raises:
            CancelledError: it may not.
        """
        why = self._refused()
        if why is not None:
            raise CancelledError(f"an upload is broken off: {why}", retryable=True)
