"""Members of a tar file from outside, unpacked: plain files and folders alone, all below a folder.

Stricter than tarfile's data filter, which Pythons before 3.11.4 lack: links are refused.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.names import check_path

if TYPE_CHECKING:
    import tarfile
    from pathlib import Path


def unpack_member(opened: tarfile.TarFile, member: tarfile.TarInfo, to: Path) -> None:
    """Make a member's file or folder below a folder; who may execute the file is kept of its mode.

    Raises:
        InvalidInputError: it would lie elsewhere, or is no plain file or folder.
        FileExistsError: such a file is there.
        NotADirectoryError: a file is where a folder of its path should be.
    """
    target = to / check_path(member.name.removesuffix("/"))
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    content = opened.extractfile(member) if member.isreg() else None
    if content is None:
        raise InvalidInputError(f"{member.name[:200]!r} is no plain file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with content, target.open("xb") as stream:
        shutil.copyfileobj(content, stream, 1 << 20)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)
