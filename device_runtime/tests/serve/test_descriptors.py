"""What happens when no more files can be opened."""

from __future__ import annotations

import asyncio
import resource
import socket
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.serving import serving
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.serve.descriptors import FILES, SAY_S, FilesWatch
from edgefleet_runtime.serve.table import ModelTable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = "edgefleet_runtime.serve.descriptors"
SOFT, HARD = resource.getrlimit(resource.RLIMIT_NOFILE)


@contextmanager
def files(most: int) -> Iterator[None]:
    """The most that this process may open; what is open stays so."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, HARD))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == NAME]


def test_a_server_that_drops_connections_for_want_of_files_says_so(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    with (
        serving(ModelTable(), uds=path) as running,
        socket.socket() as client,
        socket.socket(socket.AF_UNIX) as local,
    ):
        with files(3):
            client.connect(running.address)
            local.connect(str(path))
            eventually(lambda: said(caplog))
        assert "LimitNOFILE" in said(caplog)[0]
        assert running.ask("GET", "/v2/health/live").status == 200


def test_it_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def looking() -> None:
        watch = FilesWatch()
        watch.look(0.0)
        assert said(caplog) == []
        with files(3):
            for now in (1.0, 2.0, SAY_S, 1.0 + SAY_S, 2.0 + SAY_S):
                watch.look(now)
        watch.close()

    asyncio.run(looking())
    assert len(said(caplog)) == 2


@pytest.mark.skipif(HARD != resource.RLIM_INFINITY and HARD < FILES, reason="a low hard limit")
def test_a_server_lets_itself_open_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgefleet_runtime", "serve", "--http", "127.0.0.1:0"]
    command += ["--model-repository", str(tmp_path), "--exit-with-parent"]
    with files(256):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"serving on ")
        assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] == FILES
        process.kill()
