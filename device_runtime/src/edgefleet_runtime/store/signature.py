"""Whether a file is still the one that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def signature_of(path: Path) -> object:
    """What changes when a file is replaced, rewritten, removed, or its link points elsewhere."""
    try:
        info = path.stat()
    except OSError as error:
        return error.errno
    return (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_size)
