"""Unpack an archive of a runtime: plain files and folders alone, nothing outside of the target.

Stricter than tarfile's data filter, which Pythons before 3.11.4 lack: an archive holds no links.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from pathlib import Path

from edgefleet.errors import EdgeFleetError, IntegrityError
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.names import check_path
from edgefleet_runtime.faults import point

MAX_MEMBERS = 20_000
MAX_GROWTH = 20  # times the archive's size: wheels are compressed already
SLACK_BYTES = 64 << 20
_DAMAGED = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    FileExistsError,
    NotADirectoryError,
)


def unpack(archive: Path, to: Path) -> None:
    """Unpack into a folder, which is emptied first.

    Raises:
        IntegrityError: it holds something else, or too much.
        StorageFullError: no room.
    """
    shutil.rmtree(to, ignore_errors=True)
    left = archive.stat().st_size * MAX_GROWTH + SLACK_BYTES
    try:
        with translate_full(to), tarfile.open(archive, "r:gz") as opened:
            to.mkdir(mode=0o700)
            for number, member in enumerate(opened):
                left -= member.size
                if number >= MAX_MEMBERS or left < 0:
                    raise IntegrityError("the archive of the runtime holds too much", cure=_CURE)
                _one(opened, member, to)
                point("upgrade.unpacking")
    except _DAMAGED as error:
        raise IntegrityError(f"no archive of the runtime: {error}", cure=_CURE) from error


def _one(opened: tarfile.TarFile, member: tarfile.TarInfo, to: Path) -> None:
    try:
        target = to / check_path(member.name.removesuffix("/"))
    except EdgeFleetError as error:
        raise IntegrityError(f"the archive of the runtime has an {error.message}") from error
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    content = opened.extractfile(member) if member.isreg() else None
    if content is None:
        raise IntegrityError(
            f"{member.name[:200]!r} in the archive of the runtime is no plain file", cure=_CURE
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("xb") as stream:
        shutil.copyfileobj(content, stream, 1 << 20)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)


_CURE = "make it with: edgefleet runtime build"
