"""Unix sockets' files where several processes want one path."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import ConflictError
from edgefleet_runtime.serve import sockets
from edgefleet_runtime.serve.sockets import SocketFile

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def path() -> Iterator[Path]:
    """A path short enough for a socket on every system."""
    with tempfile.TemporaryDirectory(prefix="ef") as folder:
        yield Path(folder) / "s"


def leave_stale(path: Path) -> None:
    """What a process leaves that is killed while it serves."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def test_of_those_that_start_at_once_one_serves_and_the_others_are_told(path: Path) -> None:
    starters = 8
    for _ in range(20):
        leave_stale(path)
        together = threading.Barrier(starters)

        def start(together: threading.Barrier = together) -> socket.socket | None:
            together.wait()
            try:
                return SocketFile(path, 0o600).listen()
            except ConflictError:
                return None

        with ThreadPoolExecutor(starters) as pool:
            futures = [pool.submit(start) for _ in range(starters)]
        listeners = [listener for future in futures if (listener := future.result())]
        (winner,) = listeners
        with winner, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        path.unlink()


def test_a_successors_socket_is_not_removed(path: Path) -> None:
    first, second = SocketFile(path, 0o600), SocketFile(path, 0o600)
    first.listen().close()
    made_ns, probe = path.stat().st_ctime_ns, path.with_name("probe")
    while not probe.exists() or probe.stat().st_ctime_ns == made_ns:  # a tick of the disk's clock
        probe.unlink(missing_ok=True)
        probe.touch()
    with second.listen():
        first.remove()
        assert path.exists()
        second.remove()
        second.remove()
    assert not path.exists()


def test_a_library_that_binds_by_itself_makes_it_with_its_permissions(path: Path) -> None:
    seen: list[int] = []

    def bind(address: str) -> None:
        with socket.socket(socket.AF_UNIX) as library:
            library.bind(address.removeprefix("unix:"))
            seen.append(stat.S_IMODE(path.stat().st_mode))

    mask = os.umask(0o022)
    os.umask(mask)
    SocketFile(path, 0o640).listen_by(bind)
    assert seen == [0o640]
    assert os.umask(mask) == mask


def test_whoever_holds_the_folder_for_long_is_a_conflict(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "_LOCK_TRIES", 2)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="making sockets"):
            SocketFile(path, 0o600).listen()
    finally:
        os.close(handle)
    assert not path.exists()


def test_a_failure_leaves_nothing_behind(path: Path) -> None:
    with pytest.raises(OverflowError):
        SocketFile(path, 1 << 64).listen()  # a mode that no file can have
    assert not path.exists()
