"""Unpack an archive of a runtime: plain files and folders alone, nothing outside of the target."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from typing import TYPE_CHECKING

from edgefleet.errors import IntegrityError, InvalidInputError
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.tar_members import unpack_member
from edgefleet_runtime.faults import point

if TYPE_CHECKING:
    from pathlib import Path

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
                unpack_member(opened, member, to)
                point("upgrade.unpacking")
    except InvalidInputError as error:
        msg = f"the archive of the runtime can't be unpacked: {error.message}"
        raise IntegrityError(msg, cure=_CURE) from error
    except _DAMAGED as error:
        raise IntegrityError(f"no archive of the runtime: {error}", cure=_CURE) from error


_CURE = "make it with: edgefleet runtime build"
