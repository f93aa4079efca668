"""A private folder that goes with the process: files of bundles, and models that came by request.

Rules kept here:

- It is made when the first file needs it: a server that needs none runs with nothing writable.
- Nobody but this user can look into it, and it is removed when the server stops. No path leads out
  of it.
- A process that is killed leaves it behind; the next one to make such a folder removes it. A lock
  that the kernel lets go of with the process tells which folders are left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import (
    CancelledError,
    ConfigurationError,
    InvalidInputError,
    StorageFullError,
)
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.names import check_path
from edgefleet_runtime.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "edgefleet-serve-"
_LOCK = "lock"
_TRIES = 10


class Scratch(Closing):
    """Makes folders; use as a context manager, which removes them at its end.

    Args:
        parent: where the private folder is made; None for the system's place of temporary files.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._root: Path | None = None
        self._lock = -1
        self._making = threading.Lock()  # a load may go on while the server stops
        self._closed = False

    def folder(self, files: Mapping[str, bytes] | None = None) -> Path:
        """A new folder.

        Args:
            files: what is in it, by path; nothing without. Where one can't be written, the folder
                is removed again.

        Raises:
            InvalidInputError: a path could lead out of the folder, or two are in each other's way.
            StorageFullError: no room for the files.
            ConfigurationError: nothing can be written there; the cure says where that is.
            CancelledError: all that was made is removed already.
        """
        with self._making:
            if self._closed:
                raise CancelledError("the server is stopping")
            try:
                if self._root is None:
                    self._root, self._lock = _claimed(self._parent or Path(tempfile.gettempdir()))
                made = Path(tempfile.mkdtemp(dir=self._root))
                try:
                    for path, data in (files or {}).items():
                        _write(made, path, data)
                except BaseException:
                    shutil.rmtree(made, ignore_errors=True)
                    raise
            except StorageFullError:  # an OSError as well
                raise
            except OSError as error:
                raise ConfigurationError(
                    f"temporary files can't be written: {error.strerror or error}",
                    cure="set TMPDIR to a folder that this user may write",
                ) from error
            return made

    def close(self) -> None:
        """Remove all that was made, and make no more; may be called twice."""
        with self._making:
            self._closed = True
            if self._root is not None:
                shutil.rmtree(self._root, ignore_errors=True)
                os.close(self._lock)
                self._root = None


def _write(folder: Path, path: str, data: bytes) -> None:
    target = folder / check_path(path)
    try:
        with translate_full(folder):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                file.write(data)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidInputError(
            f"file {path[:200]!r} is where another one is, or its folder"
        ) from error


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
