"""Small files that are whole after a power cut: the old content or the new, never a mixture."""

from __future__ import annotations

import os
from pathlib import Path

from edgefleet.protocol.files import translate_full, write_and_close
from edgefleet_runtime.faults import point


def write_durably(path: Path, data: bytes, *, private: bool = False) -> None:
    """Replace a file's content; when this returns, the new content outlives a power cut.

    Written beside the target, flushed to the disk, renamed, and the folder flushed. One writer a
    path: the name of the partial file is fixed, so that a crash leaves at most one behind.

    Args:
        path: of the file; its folder exists.
        data: its new content.
        private: nobody but this user may read it, from its first byte on.

    Raises:
        StorageFullError: no room; the old content stands.
    """
    partial = path.with_name(f".{path.name}.partial")
    with translate_full(path):
        try:
            if private:
                partial.unlink(missing_ok=True)  # whoever may read one that was left, still may
            handle = os.open(
                partial,
                os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC,
                0o600 if private else 0o666,
            )
            write_and_close(handle, data)
            point(f"{path.name}.written")
            partial.replace(path)
            point(f"{path.name}.renamed")
            sync_folder(path.parent)
        except OSError:
            partial.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that renames within it outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
