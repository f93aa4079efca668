"""The files of samples that an application captured, in a capped folder, until they are delivered.

Rules kept here:

- A file is named by its digest and is whole when it has its name. It is kept before the event that
  names it, and offered to the channel before.
- A file takes whole blocks of the disk: a million samples of a few numbers are gigabytes.
- What doesn't fit under the cap is refused. Nothing kept earlier goes for it: a sample is kept
  because somebody asked for this very one. Only where the cap itself shrinks, the oldest go.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError, StorageFullError
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.files import translate_full
from edgefleet_runtime.store.durable import write_durably

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = "samples"
BLOCK = 4096  # bytes that disks give to a file at once, as most are made
_ALGORITHM = "sha256"


class SampleFiles:
    """Files below a folder; any thread may call it.

    Attributes:
        used_bytes: what all files take, in whole blocks.
        gone: files that went because the cap shrank; who tells that sets it back.

    Args:
        root: the folder; made when the first file comes.
        max_bytes: cap of all files together.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.gone = 0
        self._folder = root / FOLDER / _ALGORITHM
        self._lock = threading.Lock()
        for torn in self._folder.glob(".*.partial"):
            torn.unlink()
        self.used_bytes = sum(blocks(path.stat().st_size) for path in self.waiting())

    def put(self, data: bytes) -> str:
        """Keep a file; returns its digest.

        Raises:
            StorageFullError: no room under the cap or on the disk.
        """
        digest = digest_of(data)
        path = self._folder / hex_of(digest)
        with self._lock:
            if path.exists():
                return digest
            size = blocks(len(data))
            if self.used_bytes + size > self.max_bytes:
                raise StorageFullError(
                    f"{size} bytes don't fit: samples take {self.used_bytes} of "
                    f"{self.max_bytes} bytes",
                    cure="wait until some were delivered, or give them more room",
                )
            with translate_full(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, data)
            self.used_bytes += size
        return digest

    def allow(self, max_bytes: int) -> int:
        """Change the cap; returns the one that holds, for what is kept stays."""
        with self._lock:
            self.max_bytes = max(self.used_bytes, max_bytes)
            return self.max_bytes

    def shrink(self, max_bytes: int) -> None:
        """Give the oldest files up until the rest fits; `gone` counts them."""
        for path in self.waiting() if self.used_bytes > max_bytes else ():
            if self.used_bytes <= max_bytes:
                break
            self.remove(path)
            self.gone += 1

    def waiting(self) -> list[Path]:
        """All files, the oldest first; takes the longer the more there are."""
        try:
            found = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def find(self, digest: str) -> Path | None:
        """The file of a digest, if it waits."""
        try:
            path = self._folder / hex_of(digest)
        except InvalidInputError:  # an event may say anything
            return None
        return path if path.exists() else None

    def name_of(self, path: Path) -> str:
        """Where a file goes, below the device's own prefix."""
        return f"{FOLDER}/{_ALGORITHM}/{path.name}"

    def remove(self, path: Path) -> None:
        """Forget a file, which the channel has taken."""
        with self._lock:
            size = blocks(path.stat().st_size)
            path.unlink()
            self.used_bytes -= size


def blocks(size: int) -> int:
    """What a file of so many bytes takes on the disk; an empty one takes a block's place, too."""
    return max(1, -(-size // BLOCK)) * BLOCK
