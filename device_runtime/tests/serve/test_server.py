"""Where a server listens, and where it refuses to."""

from __future__ import annotations

import asyncio
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.serving import WAIT_S, FakeModel, read_replies, served, serving, table_of
from edgefleet.errors import ConfigurationError, ConflictError
from edgefleet_runtime.serve.access import Access
from edgefleet_runtime.serve.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

READY = b"GET /v2/health/ready HTTP/1.1\r\n\r\n"

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets"
)


@pytest.fixture
def path() -> Iterator[Path]:
    """A path short enough for a socket on every system."""
    with tempfile.TemporaryDirectory(prefix="ef") as folder:
        yield Path(folder) / "s"


def status(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(WAIT_S)
        client.connect(str(path))
        client.sendall(READY)
        return read_replies(client)[0].status


def test_tcp_and_a_unix_socket_serve_the_same(path: Path) -> None:
    with serving(table_of(served(FakeModel())), uds=path) as running:
        assert running.server.endpoint.startswith("http://127.0.0.1:")
        assert running.ask("GET", "/v2/health/ready").status == 200
        assert status(path) == 200


def test_a_unix_socket_alone_is_enough(path: Path) -> None:
    with serving(table_of(served(FakeModel())), None, uds=path) as running:
        assert running.server.endpoint == f"unix:{path}"
        assert status(path) == 200


def test_the_sockets_permissions_are_as_asked(path: Path) -> None:
    with serving(table_of(), None, uds=path, uds_mode=0o600):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_socket_is_gone_after_stopping(path: Path) -> None:
    with serving(table_of(), None, uds=path):
        assert path.exists()
    assert not path.exists()


def test_a_dead_process_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(table_of(served(FakeModel())), None, uds=path):
        assert status(path) == 200


def test_a_living_process_socket_is_left_alone(path: Path) -> None:
    with serving(table_of(served(FakeModel())), None, uds=path):
        with (
            pytest.raises(ConflictError, match="another process serves"),
            serving(table_of(), None, uds=path),
        ):
            pass
        assert status(path) == 200


def test_a_file_in_the_sockets_place_is_left_alone(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(ConflictError, match="no socket"), serving(table_of(), None, uds=path):
        pass
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["no/such/folder/s", "s" * 200])
def test_a_socket_that_can_not_be_made_says_why(path: Path, name: str) -> None:
    with (
        pytest.raises(ConfigurationError, match="cure: choose"),
        serving(table_of(), None, uds=path.parent / name),
    ):
        pass


def test_a_port_in_use_is_a_conflict() -> None:
    with serving(table_of()) as running:
        host, port = running.address
        with (
            pytest.raises(ConflictError, match=rf":{port}: it is in use\n.*choose another port"),
            serving(table_of(), host, port),
        ):
            pass


def test_a_foreign_address_is_refused_as_ours(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 32)
    token.chmod(0o600)
    foreign = "192.0.2.1"  # RFC 5737: for documentation
    with (
        pytest.raises(ConfigurationError, match="can't listen"),
        serving(table_of(), foreign, access=Access(allow_remote=True, token_file=token)),
    ):
        pass


def test_an_address_that_other_machines_reach_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--allow-remote"):
        Server(table_of(), "192.0.2.1")


def test_a_server_needs_somewhere_to_listen() -> None:
    with pytest.raises(ConfigurationError, match="an address or a Unix socket"):
        Server(table_of(), None)


def test_stopping_twice_or_before_starting_is_harmless() -> None:
    async def main() -> None:
        server = Server(table_of())
        await server.stop()
        await server.start()
        await server.stop()
        await server.stop()

    asyncio.run(main())
