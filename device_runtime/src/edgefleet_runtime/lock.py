"""One runtime a folder: a lock that the kernel lets go of when its process dies."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError, ConflictError

if TYPE_CHECKING:
    from pathlib import Path

FILE = "runtime.lock"


class RootLock:
    """Holds a folder for this process until `release`.

    Raises:
        ConflictError: another process has it; names its id.
        ConfigurationError: the folder can't be made or written.
    """

    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(root / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(
                f"the folder {root} can't be used: {error.strerror}",
                cure="name a folder on a persistent disk that this user may write",
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._handle)
            raise ConflictError(
                f"another runtime (process {holder}) uses {root}",
                cure="stop it, or give this one a folder of its own with --root",
                retryable=False,
            ) from error
        os.ftruncate(self._handle, 0)
        os.write(self._handle, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let the next process have the folder."""
        os.close(self._handle)
