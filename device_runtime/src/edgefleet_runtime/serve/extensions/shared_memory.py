"""System shared memory that clients on this machine register and name in place of tensors' data.

Rules kept here:

- Only objects of POSIX shared memory: a key is one name in that folder, never a path, and a link or
  anything but a plain file is refused.
- An object must belong to one owner: the user that this process runs as. What others can reach
  through us is no more than they can reach themselves.
- Every offset and length is held against the region, and the region against the object, each time.
- The object is read and written by copying, never mapped: whoever made it may cut it short or
  change it at any moment, and a mapping would then kill this process, or let data change after it
  was checked.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FOLDER = Path("/dev/shm")  # noqa: S108 - where Linux keeps the objects of shm_open(3)
MAX_REGIONS = 1024
MAX_NAME = 256  # characters of a region's name
_KEY = re.compile(r"/?([A-Za-z0-9_-][A-Za-z0-9._-]{0,254})")


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A registered part of a shared-memory object.

    Attributes:
        key: the object's name, as ``shm_open`` takes it.
        offset: where the region begins in the object, in bytes.
    """

    name: str
    key: str
    offset: int
    byte_size: int


class SystemRegions:
    """The regions of one server; may be used by several threads.

    Args:
        max_bytes: of one tensor that is read from a region or written to one.
        folder: where the objects are.
    """

    def __init__(self, *, max_bytes: int, folder: Path = FOLDER) -> None:
        self._max_bytes = max_bytes
        self._folder = folder
        self._open: dict[str, tuple[Region, int]] = {}
        self._lock = threading.Lock()

    @staticmethod
    def supported() -> bool:
        """Whether this system keeps shared memory where we can check it."""
        return sys.platform == "linux" and FOLDER.is_dir()

    def __contains__(self, name: str) -> bool:
        return name in self._open

    def register(self, region: Region) -> None:
        """Take a region in.

        Raises:
            AlreadyExistsError: the name is taken.
            InvalidInputError: no such object, or the region isn't inside it.
            AccessDeniedError: the object belongs to another user.
        """
        if not 0 < len(region.name) <= MAX_NAME:
            raise InvalidInputError(f"a region's name has 1 to {MAX_NAME} characters")
        if region.offset < 0 or region.byte_size <= 0:
            raise InvalidInputError(f"region {region.name!r} has no bytes, or a negative offset")
        with self._lock:
            if region.name in self._open:
                raise AlreadyExistsError(
                    f"shared memory region {region.name!r} is already registered",
                    cure="unregister it first",
                )
            if len(self._open) >= MAX_REGIONS:
                raise LimitExceededError(f"{MAX_REGIONS} regions are registered, no more fit")
            descriptor = self._opened(region)
            try:
                _check_inside(region, descriptor)
            except BaseException:
                os.close(descriptor)
                raise
            self._open[region.name] = (region, descriptor)

    def unregister(self, name: str = "") -> None:
        """Forget a region, or all of them without a name; an unknown name is no error."""
        with self._lock:
            for gone in (name,) if name else tuple(self._open):
                if gone in self._open:
                    os.close(self._open.pop(gone)[1])

    def status(self, name: str = "") -> Mapping[str, Region]:
        """The regions by name, or the one of that name.

        Raises:
            NotFoundError: no region has that name.
        """
        with self._lock:
            if name and name not in self._open:
                raise _unknown(name)
            return {key: region for key, (region, _) in self._open.items() if name in {"", key}}

    def read(self, name: str, offset: int, byte_size: int) -> memoryview:
        """A copy of these bytes of a region.

        Raises:
            NotFoundError: no region has that name.
            InvalidInputError: they aren't inside the region, or its object was cut short.
            LimitExceededError: more than ``max_bytes``.
        """
        import numpy as np  # noqa: PLC0415 - see edgefleet.protocol.tensors

        with self._lock:
            self._checked(name, offset, byte_size, byte_size)
        # A bytearray would be filled with zeros first, which takes half as long as the copy.
        data = np.empty(byte_size, np.uint8)
        self.fill(name, offset, data)
        return data.data.toreadonly()

    def fill(self, name: str, offset: int, array: NDArray[Any]) -> None:
        """Copy bytes of a region into an array that lies in one piece; errors as of `read`."""
        size = array.nbytes
        with self._lock:
            region, descriptor = self._checked(name, offset, size, size)
            read = os.preadv(descriptor, [array], region.offset + offset)  # type: ignore[list-item]  # it has the buffer interface
        if read != size:
            raise _cut(name)

    def write(self, name: str, offset: int, byte_size: int, data: bytes | memoryview) -> None:
        """Put data where a client wants it.

        Raises:
            InvalidInputError: as `read`, or the data needs more than ``byte_size`` bytes.
        """
        with self._lock:
            region, descriptor = self._checked(name, offset, byte_size, len(data))
            if len(data) > byte_size:
                raise InvalidInputError(
                    f"{len(data)} bytes don't fit the {byte_size} given of region {name!r}"
                )
            _check_inside(region, descriptor)  # a write beyond its end would make the object grow
            if os.pwritev(descriptor, [data], region.offset + offset) != len(data):
                raise _cut(name)

    def close(self) -> None:
        """Forget all regions."""
        self.unregister()

    def _checked(self, name: str, offset: int, byte_size: int, moved: int) -> tuple[Region, int]:
        """The region with these bytes, and its object; called with the lock."""
        entry = self._open.get(name)
        if entry is None:
            raise _unknown(name)
        region, _ = entry
        if offset < 0 or byte_size < 0 or offset + byte_size > region.byte_size:
            raise InvalidInputError(
                f"bytes {offset} to {offset + byte_size} are not inside region {name!r}, "
                f"which has {region.byte_size}"
            )
        if moved > self._max_bytes:
            raise LimitExceededError(f"a tensor may have {self._max_bytes} bytes, not {moved}")
        return entry

    def _opened(self, region: Region) -> int:
        key = _KEY.fullmatch(region.key)
        if key is None:
            raise InvalidInputError(
                f"{region.key[:100]!r} can't be the key of shared memory here",
                cure="use a name of letters, digits, '.', '_' and '-', as shm_open takes it",
            )
        # Not blocking: a FIFO of that name must not hold us up.
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            descriptor = os.open(self._folder / key[1], flags)
        except PermissionError as error:
            raise _not_ours(region) from error
        except OSError as error:
            raise InvalidInputError(
                f"unable to open shared memory region {region.key!r}: {error.strerror}"
            ) from error
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            os.close(descriptor)
            raise _not_ours(region)
        return descriptor


def _check_inside(region: Region, descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if region.offset + region.byte_size > size:
        raise InvalidInputError(
            f"region {region.name!r} is not inside shared memory {region.key!r} of {size} bytes"
        )


def _not_ours(region: Region) -> AccessDeniedError:
    return AccessDeniedError(
        f"shared memory {region.key!r} belongs to another user than this server's",
        cure="create it as the server's user",
    )


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(
        f"there is no shared memory region {name[:MAX_NAME]!r}", cure="register it first"
    )


def _cut(name: str) -> InvalidInputError:
    return InvalidInputError(f"the shared memory of region {name!r} was cut short")
