"""A stick's folder: anybody's, so no link on it is followed, and it may be gone at any moment."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, InvalidInputError, StorageFullError, UnavailableError
from edgefleet.protocol.files import read_small, translate_full
from edgefleet.protocol.pointer import MAX_BYTES as MAX_POINTER_BYTES
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.stick import FOLDER, POINTER

if TYPE_CHECKING:
    from collections.abc import Iterator


def root_of(mount: Path, *, make: bool = False) -> Path:
    """The folder of ours on a stick.

    Args:
        mount: where the stick is mounted.
        make: make it, where the stick has none yet.

    Raises:
        InvalidInputError: there is no stick, or none of ours.
    """
    if not mount.is_dir():
        raise InvalidInputError(
            f"{mount} is no folder", cure="mount the stick, and name its mount point"
        )
    root = mount / FOLDER
    if make:
        make_folders(mount, root)
    elif not is_folder(root):
        raise InvalidInputError(
            f"{mount} has no folder {FOLDER}",
            cure="name the mount point of a stick that a group was exported to",
        )
    return root


def fleet_of(root: Path) -> str | None:
    """UUID of the fleet that a stick was written for; None where it doesn't say."""
    try:
        return read_pointer(read_small(root / POINTER, MAX_POINTER_BYTES)).fleet
    except (OSError, InvalidInputError):
        return None


def is_folder(path: Path) -> bool:
    """Whether it is a folder, and no link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def make_folders(root: Path, folder: Path) -> None:
    """Make folders below a root, through no link.

    Raises:
        InvalidInputError: a link or a file is where a folder belongs.
    """
    at = root
    with on_stick(root):
        for part in folder.relative_to(root).parts:
            at /= part
            with suppress(FileExistsError):
                at.mkdir()
            if not is_folder(at):
                raise InvalidInputError(
                    f"{at} is a link or a file, where a folder belongs",
                    cure="remove it, or format the stick",
                )


def drop_unplain(path: Path) -> None:
    """Remove what lies where a plain file belongs and is none, such as a link."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            path.unlink()


def replace(path: Path, data: bytes) -> None:
    """Write a small file whole, by a rename; it is durable when this returns."""
    partial = path.with_name(f".{path.name}.partial")
    with on_stick(path):
        partial.unlink(missing_ok=True)
        with partial.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
        flush_folder(path.parent)


def flush(path: Path) -> None:
    """Have a file's bytes on the stick, should it be pulled out."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Have a folder's names on the stick; file systems in user space can't do that apart."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def on_stick(path: Path) -> Iterator[None]:
    """What the system says of a stick, as errors that name the cure."""
    try:
        with translate_full(path):
            yield
    except EdgeFleetError:
        raise
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise StorageFullError(
                f"{path} is larger than a file on this stick may be",
                cure="format the stick with exFAT or ext4: FAT32 takes less than 4 GiB a file",
            ) from error
        raise UnavailableError(
            f"{path}: {error.strerror or error}",
            cure="put the stick in again, writable, and repeat the call: it goes on from there",
        ) from error
