"""Plain files, read and written with every check: no link, no half-written file, no trusted digest.

Rules kept here:

- Readers follow no symlink, wait for no pipe, and trust no size or digest that they have not
  checked.
- A file appears under its name when it is whole; what a failed write began is removed.
- "No room" is one error, `StorageFullError`, and names the place.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edgefleet.errors import (
    AccessDeniedError,
    DocumentError,
    IntegrityError,
    InvalidInputError,
    StorageFullError,
)
from edgefleet.protocol.digest import CHUNK_BYTES, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from edgefleet.protocol.bundle import Descriptor

    Progress = Callable[[int], object]
    """Called with the number of bytes of each step."""


def open_plain(path: Path) -> BinaryIO:
    """Open a file for reading, unbuffered.

    Raises:
        InvalidInputError: it is a symbolic link or no plain file.
        OSError: as `open` has it, such as FileNotFoundError.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer that never comes.
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        )
    except OSError as error:
        if error.errno == errno.ELOOP:
            msg = f"{path} is a symbolic link"
            raise InvalidInputError(msg, cure="give the file itself") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        msg = f"{path} is no plain file"
        raise InvalidInputError(msg, cure="give the file itself")
    return os.fdopen(handle, "rb", buffering=0)


def read_small(path: Path, max_bytes: int) -> bytes:
    """The whole content of a small file.

    Raises:
        DocumentError: it is longer than ``max_bytes``.
        InvalidInputError: it is a symbolic link or no plain file.
        OSError: as `open` has it.
    """
    with open_plain(path) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        msg = f"{path} is over the limit of {max_bytes} bytes"
        raise DocumentError(msg)
    return data


def check_folder(path: Path) -> None:
    """Refuse a folder that is missing, a symbolic link or no folder.

    Raises:
        IntegrityError: it is one of these.
    """
    try:
        mode = path.lstat().st_mode
    except OSError as error:
        msg = f"the folder {path} is missing"
        raise IntegrityError(msg, cure="copy or pull the bundle again") from error
    if not stat.S_ISDIR(mode):
        msg = f"{path} is a link or no folder"
        raise IntegrityError(msg, cure="copy the bundle with its folders, not links")


def check_new_folder(path: Path) -> None:
    """Refuse a path at which no new folder can be made, before the work for what goes there.

    Raises:
        InvalidInputError: something is there already, or a file stands where a parent belongs.
        AccessDeniedError: this user may not write there.
    """
    if os.path.lexists(path):
        msg = f"{path} exists already"
        raise InvalidInputError(msg, cure="name a folder that does not exist yet")
    there = next(one for one in path.absolute().parents if os.path.lexists(one))
    if not there.is_dir():
        msg = f"{path} can't be made: {there} is no folder"
        raise InvalidInputError(msg, cure="name a place in a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        msg = f"{path} can't be made: {there} can't be written"
        raise AccessDeniedError(msg, cure="name a place where you may write, or mend its owner")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it appears, or replaces the one there, when all its bytes are written.

    Raises:
        StorageFullError: no room; what was there before still is.
    """
    with replacing(path) as partial, partial.open("xb") as to:
        to.write(data)


def write_and_close(handle: int, data: bytes) -> None:
    """Write to an open file, flush it to the disk, and close it whatever happens.

    Raises:
        OSError: not all of it could be written, or flushed.
    """
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def append_lines(path: Path, lines: bytes) -> None:
    """Append whole lines to a file, after ending one that a crash tore; durable at the end.

    Raises:
        StorageFullError: no room for all of them; what is there of them is a torn line.
    """
    with translate_full(path), path.open("a+b") as stream:
        if stream.seek(0, os.SEEK_END):
            stream.seek(-1, os.SEEK_END)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write(lines)
        stream.flush()
        os.fsync(stream.fileno())


def place(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``: a hard link, or a copy where none can be made.

    A ``target`` that is there already is left as it is.

    Raises:
        InvalidInputError: ``source`` is a symbolic link or no plain file.
        StorageFullError: no room for a copy.
    """
    if not stat.S_ISREG(source.lstat().st_mode):
        msg = f"{source} is a link or no plain file"
        raise InvalidInputError(msg, cure="give the file itself")
    with translate_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError:  # another disk, or a file system without links
        with replacing(target) as partial:
            shutil.copyfile(source, partial, follow_symlinks=False)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A fresh name beside ``path`` to write to; moved there at the end, or removed on any error.

    Raises:
        StorageFullError: no room.
    """
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        with translate_full(path):
            yield partial
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def checked_chunks(
    stream: BinaryIO, descriptor: Descriptor, *, name: str | None = None
) -> Iterator[memoryview]:
    """Yield a blob's chunks and check size and digest by its end.

    A consumer must not use what it got before the iterator ends without an error. Each chunk is
    valid until the next is asked for.

    Raises:
        IntegrityError: too short, too long, or other content.
    """
    hasher, seen = hashlib.sha256(), 0
    what = f"blob {descriptor.digest}" + (f" ({name})" if name else "")
    buffer = memoryview(bytearray(min(CHUNK_BYTES, descriptor.size + 1)))
    while count := stream.readinto(buffer):  # type: ignore[attr-defined]
        seen += count
        if seen > descriptor.size:
            msg = f"{what} is longer than the {descriptor.size} bytes it should have"
            raise IntegrityError(msg, cure="copy or pull it again")
        hasher.update(buffer[:count])
        yield buffer[:count]
    if seen < descriptor.size:
        msg = f"{what} ends after {seen} of {descriptor.size} bytes"
        raise IntegrityError(msg, cure="copy or pull it again")
    if "sha256:" + hasher.hexdigest() != descriptor.digest:
        msg = f"{what} holds other content than its digest says"
        raise IntegrityError(msg, cure="copy or pull it again")


def checked_bytes(stream: BinaryIO, descriptor: Descriptor, *, name: str | None = None) -> bytes:
    """A small blob whole, checked as `checked_chunks` does."""
    return b"".join(bytes(chunk) for chunk in checked_chunks(stream, descriptor, name=name))


def check_bytes(data: bytes, descriptor: Descriptor) -> None:
    """Check bytes in memory against a descriptor.

    Raises:
        IntegrityError: other size or content.
    """
    if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
        msg = f"blob {descriptor.digest} holds other content than its digest says"
        raise IntegrityError(msg, cure="copy or pull it again")


class translate_full:  # noqa: N801 - reads as a statement
    """Context manager: "no space" and "quota" become `StorageFullError` naming the place."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            msg = f"no room left for {self._path}"
            raise StorageFullError(msg, cure="free space there and repeat the call") from error


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Context manager: a `DocumentError` raised inside says which document it is about."""
    try:
        yield
    except DocumentError as error:
        error.prefixed(where)
        raise
