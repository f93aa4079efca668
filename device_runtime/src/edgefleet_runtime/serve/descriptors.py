"""Files that the process may have open: as many as it needs, and a word in the log at the last.

A connection takes one. Where none is left, uvloop closes whoever connects without a word
(`uv__emfile_trick` of libuv); asyncio's own loop and gRPC leave them waiting, and log that each
second.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import sys

_log = logging.getLogger(__name__)

FILES = 8192
"""What is asked of the system: connections of four addresses and sockets, models, telemetry."""
LOOK_S = 2.0
SAY_S = 60.0
_SAID = {
    errno.EMFILE: "this process can open no more files, and new connections are dropped: raise its "
    "limit ('ulimit -n', LimitNOFILE= of a systemd unit), or see who holds so many connections",
    errno.ENFILE: "this machine can open no more files, and new connections are dropped: end what "
    "holds so many, or raise fs.file-max with sysctl",
}


def allow_files() -> None:
    """Let this process open `FILES` files, or as many as its hard limit lets it."""
    if sys.platform == "win32":
        return  # which has no such limit
    import resource  # noqa: PLC0415 - where there is one

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it: `FilesWatch` tells
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class FilesWatch:
    """Says once in a while that no more files can be opened. Made on an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._said_at = -math.inf
        self._timer = self._loop.call_later(LOOK_S, self._turn)

    def look(self, now: float) -> None:
        """Try to open one.

        Args:
            now: monotonic seconds.
        """
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            said = _SAID.get(error.errno or 0)
            if said is not None and now - self._said_at >= SAY_S:
                self._said_at = now
                _log.error(said)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _turn(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._turn)
        self.look(self._loop.time())
