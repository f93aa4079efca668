"""A private folder that goes with the process: files of bundles, and models that came by request.

Rules kept here:

- It is made when the first file needs it: a server that needs none runs with nothing writable.
- Nobody but this user can look into it, and it is removed when the server stops.
- A process that is killed leaves it behind; the next one to make such a folder removes it. A lock
  that the kernel lets go of with the process tells which folders are left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

PREFIX = "edgefleet-serve-"
_LOCK = "lock"
_TRIES = 10


class Scratch:
    """Makes folders; use as a context manager, which removes them at its end.

    Args:
        parent: where the private folder is made; None for the system's place of temporary files.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._root: Path | None = None
        self._lock = -1

    def folder(self) -> Path:
        """A new folder, empty.

        Raises:
            ConfigurationError: none can be made; the cure says where it would be.
        """
        try:
            if self._root is None:
                self._root, self._lock = _claimed(self._parent or Path(tempfile.gettempdir()))
            return Path(tempfile.mkdtemp(dir=self._root))
        except OSError as error:
            raise ConfigurationError(
                f"there is no folder for temporary files: {error.strerror or error}",
                cure="set TMPDIR to a folder that this user may write",
            ) from error

    def close(self) -> None:
        """Remove all that was made; may be called twice."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)
            os.close(self._lock)
            self._root = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _claimed(parent: Path) -> tuple[Path, int]:
    """A new folder with its lock held, once what dead processes left is gone."""
    with suppress(OSError):
        for left in parent.glob(f"{PREFIX}*"):
            _remove_if_left(left)
    for _ in range(_TRIES):
        root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        handle = os.open(root / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _is_locked(handle) and (root / _LOCK).exists():
            return root, handle
        os.close(handle)  # another process took the newborn for one that was left
    msg = "others keep removing what is made there"
    raise OSError(msg)


def _remove_if_left(root: Path) -> None:
    """Remove such a folder of this user, unless a process that lives has its lock."""
    with suppress(OSError):
        if root.is_symlink() or root.lstat().st_uid != os.geteuid():
            return
        handle = os.open(root / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if _is_locked(handle):
                shutil.rmtree(root, ignore_errors=True)
        finally:
            os.close(handle)


def _is_locked(handle: int) -> bool:
    """Whether the lock is ours now."""
    import fcntl  # noqa: PLC0415 - as late as the first folder

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
