"""System V shared memory, in which clients may lay tensors: read by copying, never written.

A handle's ``segment_id`` is what ``shmget`` gave. AWS's page calls it a "posix" one; its examples
make the segment read-only with ``shmctl`` before they hand it over.

Rules kept here:

- A segment must belong to one owner: the user that this process runs as. What others can reach
  through us is no more than they can reach themselves.
- Offset and size are held against the segment while it is attached: it can neither shrink nor go
  meanwhile, and it is attached read-only.
- The bytes are copied before anybody looks at them: whoever made the segment may still write to it.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import sys

from edgefleet.errors import (
    AccessDeniedError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    UnsupportedError,
)

_RDONLY = 0o10000  # SHM_RDONLY, linux/shm.h
_STAT = 2  # IPC_STAT, linux/ipc.h
_FAILED = ctypes.c_void_p(-1).value


class _About(ctypes.Structure):
    """``struct shmid_ds`` up to the size, as Linux's C libraries have it (sys/shm.h)."""

    _fields_ = (
        ("key", ctypes.c_int),
        ("uid", ctypes.c_uint),
        ("gid", ctypes.c_uint),
        ("cuid", ctypes.c_uint),
        ("cgid", ctypes.c_uint),
        ("mode", ctypes.c_uint),
        ("sequence", ctypes.c_ushort),
        ("padding", ctypes.c_ushort),
        ("unused", ctypes.c_ulong * 2),
        ("size", ctypes.c_size_t),
        ("rest", ctypes.c_ulong * 16),
    )


def supported() -> bool:
    """Whether this system has such segments, laid out as is known here."""
    return sys.platform == "linux"


def read_segment(segment: int, offset: int, size: int, *, max_bytes: int) -> bytes:
    """A copy of these bytes of a segment.

    Raises:
        NotFoundError: there is no such segment.
        AccessDeniedError: it belongs to another user.
        InvalidInputError: they are not inside it.
        LimitExceededError: more than ``max_bytes``.
        UnsupportedError: this system has no such segments.
    """
    if not supported():
        raise UnsupportedError("there is no System V shared memory here", cure="send byte_data")
    if size > max_bytes:
        raise LimitExceededError(f"tensors may have {max_bytes} bytes, not {size}")
    if segment >= 1 << 31:
        raise _unknown(segment)
    libc = _libc()
    address = libc.shmat(segment, None, _RDONLY)
    if address in {None, _FAILED}:
        raise _refused(segment, ctypes.get_errno())
    try:
        about = _About()
        if libc.shmctl(segment, _STAT, ctypes.byref(about)):
            raise _refused(segment, ctypes.get_errno())
        if about.uid != os.geteuid():
            raise _refused(segment, errno.EACCES)
        if offset + size > about.size:
            raise InvalidInputError(
                f"bytes {offset} to {offset + size} are not inside shared memory segment "
                f"{segment}, which has {about.size}"
            )
        return ctypes.string_at(address + offset, size)
    finally:
        libc.shmdt(address)


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
    libc.shmctl.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
    libc.shmdt.argtypes = (ctypes.c_void_p,)
    return libc


def _unknown(segment: int) -> NotFoundError:
    return NotFoundError(
        f"there is no shared memory segment {segment}",
        cure="make it with shmget, in the IPC namespace that this runtime is in",
    )


def _refused(segment: int, number: int) -> AccessDeniedError | NotFoundError | LimitExceededError:
    if number in {errno.EACCES, errno.EPERM}:
        return AccessDeniedError(
            f"shared memory segment {segment} belongs to another user than this runtime's",
            cure="create it as the runtime's user, or send byte_data",
        )
    if number == errno.ENOMEM:
        return LimitExceededError(f"shared memory segment {segment} can't be attached: no memory")
    return _unknown(segment)
