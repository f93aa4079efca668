"""Ports that are held until a server listens there, and while none does."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import pytest

from edgefleet.testing.cloud.ports import HeldPort


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port can't be held for another")
def test_a_held_port_is_a_server_s_again_and_again_and_nobody_else_s() -> None:
    with closing(HeldPort()) as held:
        assert not held.taken
        for _ in range(2):
            with socket.socket() as another, pytest.raises(OSError, match="in use"):
                another.bind(("127.0.0.1", held.number))
            with (
                socket.create_server(("127.0.0.1", held.number)),
                socket.create_connection(("127.0.0.1", held.number)),
            ):
                pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", held.number))


def test_a_port_that_was_given_away_is_anybody_s() -> None:
    held = HeldPort()
    held.close()
    held.close()
    with socket.socket() as another:
        another.bind(("127.0.0.1", held.number))


def test_a_port_that_somebody_has_is_told_and_not_held() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        closing(HeldPort(port := server.getsockname()[1])) as held,
    ):
        assert (held.number, held.taken) == (port, True)
