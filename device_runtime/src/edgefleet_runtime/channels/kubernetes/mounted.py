"""The pointer in a mounted ConfigMap, which the kubelet may swap at any time.

Rules kept here:

- The kubelet writes a new folder and then swaps the link ``..data`` onto it (AtomicWriter,
  https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go); the files
  beside it are links through that one. So the folder behind ``..data`` is opened once and the file
  read from there. Where it is removed meanwhile, the new one is read.
- A missing file is no pointer yet. One that ends in the middle is being written by somebody who
  isn't the kubelet: until it is whole, the last whole one counts; what stays as it is for
  `SETTLE_S` is given as it is, for the reconciler to refuse aloud.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgefleet.errors import UnavailableError
from edgefleet.protocol.pointer import MAX_BYTES
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.channels.watched import read_small

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATA = "..data"
SETTLE_S = 2.0
TRIES = 5  # swaps in the middle of reading, before the next turn has to do


class MountedPointer:
    """Reads a pointer's file.

    Args:
        path: the file, in the folder where its ConfigMap is mounted; either may be missing.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._clock = clock
        self._whole: bytes | None = None
        self._torn: tuple[bytes, float] | None = None

    def read(self) -> bytes | None:
        """The pointer's bytes, cut one above what a pointer may have; None while there is none.

        Raises:
            UnavailableError: it is there and can't be read.
        """
        try:
            data = read_mounted(self._path.parent, self._path.name, MAX_BYTES)
        except OSError as error:
            raise UnavailableError(f"{self._path}: {error.strerror}") from error
        if data is None or _is_whole(data):
            self._whole, self._torn = data, None
            return data
        if self._torn is None or self._torn[0] != data:
            self._torn = (data, self._clock())
        settled = self._clock() - self._torn[1] >= SETTLE_S
        return data if settled and data else self._whole


def read_mounted(folder: Path, name: str, max_bytes: int) -> bytes | None:
    """A file of a mounted ConfigMap, cut one above ``max_bytes``; None when it isn't there.

    Raises:
        OSError: it can't be read.
    """
    for _ in range(TRIES):
        with _opened(folder) as handle:
            if handle is None:
                return None
            try:
                return read_small(name, max_bytes, folder=handle)
            except FileNotFoundError:
                if _is_current(folder, handle):
                    return None
    return None


@contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    """The folder that holds the files now, open; None where there is none."""
    handle: int | None = None
    for path in (folder / DATA, folder):
        try:
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        break
    try:
        yield handle
    finally:
        if handle is not None:
            os.close(handle)


def _is_current(folder: Path, handle: int) -> bool:
    with _opened(folder) as now:
        return now is not None and os.path.sameopenfile(now, handle)


def _is_whole(data: bytes) -> bool:
    if len(data) > MAX_BYTES:
        return True  # too long, whatever follows
    try:
        decoder(Any).decode(data)
    except UNREADABLE:
        return False
    return True
