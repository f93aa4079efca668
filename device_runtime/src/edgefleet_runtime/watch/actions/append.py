"""A file: the alarm's event as one more line, in the folder that the device allows.

Rules kept here: a name has no folder in it, links are not followed, only plain files are written,
a line is on the disk when the call returns, and a file and the one before it (``NAME.1``) take at
most the bytes allowed each.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    LimitExceededError,
    UnavailableError,
)
from edgefleet.protocol.policy_problems import FILE_NAME

if TYPE_CHECKING:
    from pathlib import Path

_SAFE = sum(getattr(os, name, 0) for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _SAFE
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0)


def append(folder: Path | None, name: str, line: bytes, *, max_bytes: int) -> None:
    """Add a line to a file.

    Raises:
        AccessDeniedError: the device allows no files, or none of this name.
        LimitExceededError: the line alone is over the limit.
        UnavailableError: the disk doesn't take it.
    """
    if folder is None:
        raise AccessDeniedError(
            "this device allows alarms no files", cure="start the runtime with --alarm-folder DIR"
        )
    if not FILE_NAME.fullmatch(name):
        raise AccessDeniedError(f"{name!r} is no name of a file", cure="leave folders out of it")
    if len(line) + 1 > max_bytes:
        raise LimitExceededError(f"a line of {len(line)} bytes is over {max_bytes}")
    try:
        below = os.open(folder, _FOLDER)
        try:
            _append(below, name, line + b"\n", max_bytes)
        finally:
            os.close(below)
    except EdgeFleetError:
        raise
    except OSError as error:
        raise UnavailableError(f"{name} can't be written: {error.strerror or error}") from error


def _append(folder: int, name: str, line: bytes, max_bytes: int) -> None:
    handle = os.open(name, _FLAGS, 0o640, dir_fd=folder)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
            raise AccessDeniedError(f"{name} is no plain file of its own")
        if about.st_size + len(line) > max_bytes:
            os.rename(name, f"{name}.1", src_dir_fd=folder, dst_dir_fd=folder)
            os.close(handle)
            handle = os.open(name, _FLAGS | os.O_EXCL, 0o640, dir_fd=folder)
        while line:
            line = line[os.write(handle, line) :]
        os.fsync(handle)
    finally:
        os.close(handle)
