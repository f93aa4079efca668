"""Files that devices are still sending, on this machine's disk.

Rules kept here:

- A file is known by device, path and digest: a device that goes on after a restart of the gateway
  finds what came before, and two contents of one path don't mix.
- All of them together are capped, and so is one device. What nobody went on with for a week is
  swept away.
- A file that was handed on leaves an empty mark, so that whoever lost the answer needn't send it
  again; the mark is swept away likewise, and so is the folder of a device that sends nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import ConfigurationError, StorageFullError
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEPT_S = 7 * 86_400.0  # seconds that a half file is kept after its last part
MARKED_S = 86_400.0  # seconds that the mark of a whole one is kept
MAX_BYTES = 4 << 30  # bytes of all half files, unless told otherwise
MAX_DEVICE_BYTES = 512 << 20  # bytes of one device's
SPARE_BYTES = 64 << 20  # bytes that stay free on the disk, for what else lives there
_MARK = ".done"
_LOG = logging.getLogger(__name__)


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Keep other gateways away from a folder, which is made when missing, as long as this lasts.

    Raises:
        ConfigurationError: another one uses it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"another gateway uses the folder {folder}",
                cure="give each its own, with --scratch",
            ) from error
        yield
    finally:
        os.close(handle)


class Partial(NamedTuple):
    """A file that a device sends.

    Attributes:
        device: who sends it.
        file: its bytes so far; may be missing.
    """

    device: str
    file: Path

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return self.file.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def done(self) -> bool:
        """Whether it was handed on."""
        return self._mark.exists()

    def append(self, data: bytes, *, at: int) -> None:
        """Write a stretch; nothing beyond what was there before stays when that fails."""
        handle = self._opened()
        try:
            left = memoryview(data)
            place = at
            while left:
                count = os.pwrite(handle, left, place)
                place, left = place + count, left[count:]
        except OSError:
            os.ftruncate(handle, at)
            raise
        finally:
            os.close(handle)

    def _opened(self) -> int:
        while True:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileNotFoundError):  # the folder was swept away just now
                return os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def finish(self) -> None:
        """Leave the mark in its place."""
        self._mark.touch(mode=0o600)
        self.drop()

    def drop(self) -> None:
        """Forget what came."""
        self.file.unlink(missing_ok=True)

    @property
    def _mark(self) -> Path:
        return self.file.with_name(self.file.name + _MARK)


class Scratch:
    """A folder of half files. All but `sweep` happens on one event loop.

    Args:
        folder: made when missing; see `sole`.
        max_bytes: of all files together.
        max_device_bytes: of one device's.
        clock: seconds since 1970, as files' times are.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = MAX_BYTES,
        max_device_bytes: int = MAX_DEVICE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = folder / "partial"
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._max_bytes = max_bytes
        self._max_device_bytes = max_device_bytes
        self._clock = clock
        self._name = folder / "gateway"
        self._sizes: dict[str, int] = {}  # device -> bytes of its half files
        for device, file in self._files():
            if file.suffix != _MARK:
                self._sizes[device] = self._sizes.get(device, 0) + file.stat().st_size

    @property
    def held(self) -> int:
        """Bytes of all half files."""
        return sum(self._sizes.values())

    def gateway_name(self) -> str:
        """A name of the process that uses this folder, the same after a restart."""
        try:
            return check_name("device", self._name.read_text(encoding="utf-8").strip())
        except (FileNotFoundError, ValueError):
            name = f"gateway-{secrets.token_hex(8)}"
            self._name.write_text(name, encoding="utf-8")
            return name

    def partial(self, device: str, path: str, digest: str) -> Partial:
        """The file that a device sends for a path with that digest."""
        key = hashlib.sha256(f"{path}\0{digest}".encode()).hexdigest()
        return Partial(device, self._root / check_name("device", device) / key)

    def grown(self, device: str, count: int) -> None:
        """Count bytes that came, or with a negative number those that went."""
        left = self._sizes.get(device, 0) + count
        self._sizes[device] = left
        if left <= 0:
            del self._sizes[device]

    def check_room(self, device: str, count: int) -> None:
        """Refuse bytes that there is no room for.

        Raises:
            StorageFullError: the device, all together, or the disk has none left.
        """
        if self._sizes.get(device, 0) + count > self._max_device_bytes:
            raise StorageFullError(
                f"{device} has {self._max_device_bytes} bytes of unfinished files here",
                cure="finish one of them first",
            )
        free = shutil.disk_usage(self._root).free
        if self.held + count > self._max_bytes or count > free - SPARE_BYTES:
            raise StorageFullError(
                "this gateway has no room for further files", cure="send it again later"
            )

    def sweep(self) -> list[tuple[str, int]]:
        """Remove what nobody went on with, and old marks. May run in a thread.

        Returns:
            Device and bytes of each file that went; `grown` is to be told of them.
        """
        swept: list[tuple[str, int]] = []
        now = self._clock()
        for device, file in list(self._files()):
            try:
                about = file.stat()
                marked = file.suffix == _MARK
                if about.st_mtime > now - (MARKED_S if marked else KEPT_S):
                    continue
                file.unlink()
            except FileNotFoundError:
                continue
            swept.append((device, 0 if marked else about.st_size))
        for folder in self._root.iterdir():
            with suppress(OSError):  # there is something in it, as there mostly is
                if folder.stat().st_mtime <= now - KEPT_S:
                    folder.rmdir()
        return swept

    def _files(self) -> Iterator[tuple[str, Path]]:
        for folder in self._root.iterdir():
            if folder.is_dir() and not folder.is_symlink():
                yield from ((folder.name, file) for file in folder.iterdir())
