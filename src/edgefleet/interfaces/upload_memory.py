"""Where an upload under way goes on, kept in a file: a push that was killed takes it up again.

Rules kept here:

- Whoever knows an upload's address may write what it uploads: file and folder are their owner's.
- One process or thread has an upload at a time, by a lock. Others keep nothing, and begin uploads
  of their own.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgefleet.protocol.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class UploadMemory:
    """The address of one upload.

    Args:
        path: of its file; None to keep nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    def address(self) -> str | None:
        """Of the upload; None where none is known."""
        if self._path is None:
            return None
        try:
            found = json.loads(self._path.read_bytes())["address"]
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return found if isinstance(found, str) else None

    def keep(self, address: str) -> None:
        """Remember where the upload goes on.

        Raises:
            StorageFullError: no room; what was remembered before still is.
        """
        if self._path is None:
            return
        with replacing(self._path) as partial:
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as to:
                json.dump({"address": address}, to)

    def forget(self) -> None:
        """Remember nothing."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@contextmanager
def upload_memory(folder: Path, name: str) -> Iterator[UploadMemory]:
    """The memory of an upload; one that keeps nothing where another process or thread has it.

    Args:
        folder: for all of them; made for its owner only.
        name: of the upload, which is the same in every process.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only where something is sent

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock", mode=0o600)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield UploadMemory()
        return
    try:  # the lock's file stays: two could hold it, one by the old file and one by a new
        yield UploadMemory(folder / f"{name}.json")
    finally:
        lock.release()
