"""Archives whose bytes depend on what is in them alone, not on times, users or a disk's order."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest that a zip can say
_CHUNK = 1 << 20


class Member(NamedTuple):
    """A file of an archive.

    Attributes:
        name: in the archive.
        content: bytes, or the file that holds them.
        executable: whether it may be run.
    """

    name: str
    content: bytes | Path
    executable: bool = False


def pack_tar(members: Iterable[Member], to: Path) -> None:
    """Write a tar.gz.

    Wheels are compressed already, so it is stored: what deflate makes depends on its library.
    """
    with (
        to.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=0, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.mode = 0o755 if member.executable else 0o644
            if isinstance(member.content, bytes):
                info.size = len(member.content)
                archive.addfile(info, io.BytesIO(member.content))
                continue
            with member.content.open("rb") as content:
                info.size = member.content.stat().st_size
                archive.addfile(info, content)


def pack_zip(members: Iterable[Member], to: Path) -> None:
    """Write a zip of files that are compressed already."""
    with zipfile.ZipFile(to, "w", zipfile.ZIP_STORED) as packed:
        for member in members:
            with packed.open(zipfile.ZipInfo(member.name, _EPOCH), "w") as into:
                if isinstance(member.content, bytes):
                    into.write(member.content)
                    continue
                with member.content.open("rb") as content:
                    while data := content.read(_CHUNK):
                        into.write(data)
