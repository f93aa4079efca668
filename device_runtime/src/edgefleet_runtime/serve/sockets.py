"""Unix sockets in the file system, for every server that listens on one.

Rules kept here:

- Nobody connects before the permissions of the socket's file hold.
- What a dead process left is removed; a socket that is served, or a file that is none, stays.
- Of two that start on one path at once, one serves and the other is told.
- Whoever made the file removes it, and never a successor's.
"""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError, ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BACKLOG = 128
MAX_PATH = 103 if sys.platform == "darwin" else 107  # bytes; sockaddr_un less its NUL
_LOCK_TRIES = 50
_LOCK_PAUSE_S = 0.02


class SocketFile:
    """The file of a Unix socket.

    Args:
        path: where it is.
        mode: its permissions.
    """

    def __init__(self, path: Path, mode: int) -> None:
        self.path = path
        self._mode = mode
        self._inode: int | None = None

    def listen(self) -> socket.socket:
        """A socket that listens there.

        Raises:
            ConflictError: a living process serves there, or a file that is no socket is there.
            ConfigurationError: this system or this path can't have one.
        """
        with self._claimed():
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.bind(os.fspath(self.path))
                try:
                    self.path.chmod(self._mode)
                    listener.listen(BACKLOG)
                except BaseException:
                    self.path.unlink(missing_ok=True)
                    raise
            except BaseException:
                listener.close()
                raise
            listener.setblocking(False)
        return listener

    def listen_by(self, bind: Callable[[str], object]) -> None:
        """Have a library listen there that takes an address ``unix:PATH`` and no socket.

        Raises:
            ConflictError: as `listen`.
            ConfigurationError: likewise.
        """
        with self._claimed():
            # The mode must hold before anybody can connect, and such a library has no option for
            # it.
            mask = os.umask(0o777 & ~self._mode)
            try:
                bind(f"unix:{self.path}")
            finally:
                os.umask(mask)

    def remove(self) -> None:
        """Remove the file, if it is still the one made here; may be called twice."""
        if self._inode is not None and _inode(self.path) == self._inode:
            self.path.unlink(missing_ok=True)
        self._inode = None

    @contextmanager
    def _claimed(self) -> Iterator[None]:
        """Makes room for the file, and knows the one that is there at the end."""
        if not hasattr(socket, "AF_UNIX"):
            raise ConfigurationError("this system has no Unix sockets", cure="listen on 127.0.0.1")
        if len(os.fsencode(self.path)) > MAX_PATH:
            raise ConfigurationError(
                f"the socket's path is over {MAX_PATH} bytes: {self.path}",
                cure="choose a shorter one",
            )
        try:
            with _alone_in(self.path.parent):
                _remove_stale(self.path)
                yield
                self._inode = _inode(self.path)
        except OSError as error:
            raise ConfigurationError(
                f"can't listen on {self.path}: {error.strerror or error}",
                cure="choose a folder that exists and is ours",
            ) from error


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Holds off others who look for stale sockets in the folder; the kernel ends it with us."""
    import fcntl  # noqa: PLC0415 - where there are Unix sockets

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(_LOCK_TRIES):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_LOCK_PAUSE_S)
            except OSError:  # a file system without such locks
                break
            else:
                break
        else:
            raise ConflictError(
                f"another process has been making sockets in {folder} for a while",
                cure="see what hangs there, or choose another folder",
            )
        yield
    finally:
        os.close(handle)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def _remove_stale(path: Path) -> None:
    """Remove the socket that a dead process left; one of a living process or a file stays."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConflictError(
            f"{path} is there and is no socket", cure="choose another path", retryable=False
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise ConflictError(
                f"can't tell whether the socket {path} is in use: {error.strerror or error}",
                cure="remove it if no runtime is running",
            ) from error
    raise ConflictError(f"another process serves on {path}", cure="stop it, or choose another path")
