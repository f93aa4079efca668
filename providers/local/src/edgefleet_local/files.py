"""Files that several processes share: whole or absent, locked where two could write.

Rules kept here:

- A file is replaced by a rename after its bytes were flushed: readers need no lock, and a killed
  writer leaves the old content or the new.
- A lock is advisory and tied to an open file (flock(2)): the system lets go of it however its
  holder ends.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.protocol.files import write_and_close

if TYPE_CHECKING:
    from collections.abc import Iterator


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they outlive a power cut."""
    missing = [folder]
    while not missing[-1].parent.is_dir():
        missing.append(missing[-1].parent)
    for path in reversed(missing):
        try:
            path.mkdir()
        except FileExistsError:
            if not path.is_dir():
                raise
        else:
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes, *, partial: Path | None = None) -> None:
    """Replace a file's content; when this returns, the new content outlives a power cut.

    One writer at a time: the caller holds a lock, or nobody else writes this file.

    Args:
        path: its folder is made when missing.
        data: the new content.
        partial: where it grows, on the same file system; beside ``path`` by default.
    """
    partial = path.with_name(f".{path.name}.partial") if partial is None else partial
    make_folder(path.parent)
    make_folder(partial.parent)
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        write_and_close(handle, data)
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_small(path: Path, max_bytes: int) -> bytes | None:
    """A plain file's bytes, one more than allowed when it is longer; None when it is missing.

    Links are not followed: what lies in a folder that a device writes must not lead out of it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with os.fdopen(handle, "rb", closefd=False) as stream:
            return stream.read(max_bytes + 1)
    finally:
        os.close(handle)


def try_lock(path: Path) -> int | None:
    """Take a lock without waiting; its handle, or None when somebody else has it.

    Close the handle to let go. The file itself stays.
    """
    try:
        return new_lock(path)
    except BlockingIOError:
        return None


def new_lock(path: Path) -> int:
    """Take a lock that nobody has yet; its handle.

    Raises:
        BlockingIOError: somebody has it.
    """
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(handle)
        raise
    return handle


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock while the block runs, waiting for whoever has it."""
    make_folder(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
