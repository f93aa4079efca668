"""A run's log with a limit: a script may print for ever, the disk may not fill with it."""

from __future__ import annotations

import os

MAX_BYTES = 64 << 20  # of output that is kept
MAX_METRIC_BYTES = 16 << 20  # of metric lines that are kept after that
METRIC_PREFIX = b"edgefleet-metric "  # as edgefleet.interfaces.trainer has it
_MAX_LINE = 64 << 10  # bytes of a line that may still be a metric


class CappedLog:
    """Keeps what it is given up to a limit, then says so once and keeps metric lines only.

    Args:
        handle: file to append to; stays the caller's.
        max_bytes: the limit.
        max_metric_bytes: the limit of what is kept after that.
    """

    def __init__(
        self,
        handle: int,
        *,
        max_bytes: int = MAX_BYTES,
        max_metric_bytes: int = MAX_METRIC_BYTES,
    ) -> None:
        self._handle = handle
        self._left, self._max = max_bytes, max_bytes
        self._metrics_left = max_metric_bytes
        self._line = b""
        self._full = False

    def write(self, data: bytes) -> None:
        """Keep or drop bytes. Never raises for want of room: the script must not notice."""
        kept, rest = data[: self._left], data[self._left :]
        self._left -= len(kept)
        try:
            self._append(kept)
            # Should the limit cut a line, it is judged whole below: it may be a metric.
            self._line = (self._line + kept[-_MAX_LINE:]).rpartition(b"\n")[2][:_MAX_LINE]
            if rest and not self._full:
                self._full = True
                self._append(
                    f"\n[edgefleet: output over {self._max} bytes is not kept, "
                    "metrics still are]\n".encode()
                )
            if rest:
                self._keep_metrics(rest)
        except OSError:
            return

    def _keep_metrics(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        self._line = self._line[:_MAX_LINE]
        for line in lines:
            if line.startswith(METRIC_PREFIX) and len(line) < self._metrics_left:
                self._metrics_left -= len(line) + 1
                self._append(line + b"\n")

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._handle, left) :]
