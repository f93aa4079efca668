"""Small files that somebody else replaces at any time: read them, and wait for their change."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, UnavailableError
from edgefleet_runtime.store.signature import signature_of

if TYPE_CHECKING:
    from pathlib import Path

MAX_SECRET_BYTES = 16 << 10


class WatchedFiles:
    """Files that are looked at again and again; one look is a stat call each.

    Any thread may call `wake`; the rest belongs to one.

    Args:
        paths: the files; each may be missing, a link, and be replaced at any time.
        interval_s: seconds between two looks.
    """

    def __init__(self, *paths: Path, interval_s: float) -> None:
        self._paths = paths
        self._interval_s = interval_s
        self._woken = threading.Event()
        self._seen: dict[Path, object] = {}

    def read(self, path: Path, max_bytes: int) -> bytes | None:
        """A file's bytes, cut one above ``max_bytes``; None when it is missing.

        Raises:
            UnavailableError: it is there and can't be read.
        """
        self.mark(path)
        try:
            return read_small(path, max_bytes)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnavailableError(f"{path.name} can't be read: {error.strerror}") from error

    def mark(self, path: Path) -> None:
        """Take what a file looks like now for known: `wait` tells of what comes after.

        Called before the bytes are read, so that a change in between is seen as one.
        """
        self._seen[path] = signature_of(path)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a change or `wake`; False when neither came in ``timeout_s`` seconds."""
        deadline = time.monotonic() + timeout_s
        while True:
            if self._woken.is_set():
                self._woken.clear()
                return True
            if any(signature_of(path) != self._seen.get(path) for path in self._paths):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._woken.wait(min(left, self._interval_s))

    def wake(self) -> None:
        """Make the `wait` in progress, or else the next one, return True."""
        self._woken.set()


def read_small(path: Path | str, max_bytes: int, *, folder: int | None = None) -> bytes:
    """A file's bytes, cut one above ``max_bytes``; a pipe doesn't hang.

    Args:
        path: of the file.
        max_bytes: most that it should have.
        folder: an open folder that a relative path begins at.

    Raises:
        OSError: it can't be read.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder)
    with os.fdopen(handle, "rb") as stream:
        return stream.read(max_bytes + 1)


def read_secret(path: Path, what: str, *, cure: str) -> str:
    """What a file with a credential says, read anew because it may have been replaced.

    Args:
        path: of the file.
        what: it should hold, for errors; nothing of its content is in them.
        cure: of its absence.

    Raises:
        AccessDeniedError: it isn't there, or is no credential.
    """
    try:
        data = read_small(path, MAX_SECRET_BYTES)
    except OSError as error:
        raise AccessDeniedError(f"no {what} at {path}", cure=cure) from error
    text = data.decode("ascii", "replace").strip()
    whole = text.isascii() and text.isprintable() and len(data) <= MAX_SECRET_BYTES
    if not text or not whole:
        raise AccessDeniedError(
            f"no {what} in {path}", cure="write it again: one line of printable characters is one"
        )
    return text
