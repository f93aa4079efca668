"""The door for orders of the Kubernetes channel: who is heard, and what is refused."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.errors import ConfigurationError
from edgefleet.protocol.orders import MAX_ORDER, ROLLBACK, STATUS
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.kubernetes.orders import MAX_CONNECTIONS, TOKEN_HEADER, OrderDoor
from edgefleet_runtime.channels.kubernetes.settings import read_settings
from edgefleet_runtime.channels.requests import Reply, Request

HEARD = Reply(200, {"content-type": "application/json"}, b'{"done": true}')


class Asked:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Reply:
        self.requests.append(request)
        return HEARD


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "orders"
    path.write_text("word\n")
    return path


@pytest.fixture
def door(asked: Asked, token: Path) -> Iterator[OrderDoor]:
    door = OrderDoor("127.0.0.1:0", token, asked)
    yield door
    door.close()


def ask(
    door: OrderDoor, path: str, *, token: str = "word", body: bytes | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
    headers = {TOKEN_HEADER: f"Bearer {token}"} if token else {}
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_an_order_with_the_token_is_heard(door: OrderDoor, asked: Asked) -> None:
    assert ask(door, ROLLBACK, body=b"{}") == (200, HEARD.body)
    assert ask(door, STATUS) == (200, HEARD.body)
    assert [(one.path, one.body) for one in asked.requests] == [(ROLLBACK, b"{}"), (STATUS, None)]


@pytest.mark.parametrize("shown", ["", "other", "wor", "wörd"])
def test_whoever_has_another_token_is_not_heard(door: OrderDoor, asked: Asked, shown: str) -> None:
    assert ask(door, ROLLBACK, token=shown, body=b"{}")[0] == 401
    assert asked.requests == []


def test_a_token_that_was_replaced_counts_at_once(
    door: OrderDoor, token: Path, asked: Asked
) -> None:
    token.write_text("new")
    assert ask(door, STATUS)[0] == 401
    assert ask(door, STATUS, token="new")[0] == 200
    token.write_text("")
    assert ask(door, STATUS, token="")[0] == 401


def test_requests_to_models_are_not_for_this_door(door: OrderDoor, asked: Asked) -> None:
    assert ask(door, "/v2/models/digits")[0] == 404
    assert asked.requests == []


def test_a_body_that_no_order_has_is_refused_unread(door: OrderDoor, asked: Asked) -> None:
    assert ask(door, ROLLBACK, body=bytes(MAX_ORDER + 1))[0] == 413
    assert asked.requests == []


def test_a_request_without_a_length_is_refused(door: OrderDoor) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=60) as plain:
        plain.sendall(f"POST {ROLLBACK} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert plain.recv(100).startswith(b"HTTP/1.1 413")


def test_connections_that_say_nothing_take_no_more_threads_than_there_is_room_for(
    door: OrderDoor,
) -> None:
    place = ("127.0.0.1", door.port)
    with contextlib.ExitStack() as idle:
        for _ in range(MAX_CONNECTIONS):
            idle.enter_context(socket.create_connection(place, timeout=60))
        with pytest.raises(ConnectionError):
            ask(door, STATUS)

    def is_heard() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(door, STATUS)[0] == 200
        return False

    eventually(is_heard)


@pytest.mark.parametrize(
    "begun",
    [
        f"POST {ROLLBACK} HTTP/1.1\r\nContent-Length: {MAX_ORDER}\r\n\r\n",
        f"GET {STATUS} HTTP/1.1\r\nX: ",
    ],
    ids=["body", "head"],
)
def test_a_request_that_comes_byte_by_byte_is_cut_off(
    token: Path, asked: Asked, begun: str
) -> None:
    door = OrderDoor("127.0.0.1:0", token, asked, patience_s=0.5)
    with socket.create_connection(("127.0.0.1", door.port)) as slow:
        slow.sendall(begun.encode())
        slow.settimeout(0.02)
        assert any(_is_cut_off(slow) for _ in range(500)), "held after 10 s"
    door.close()
    assert asked.requests == []


def _is_cut_off(slow: socket.socket) -> bool:
    try:
        slow.sendall(b" ")
        return not slow.recv(1)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_closed_door_hears_nothing_on_connections_that_were_open(
    token: Path, asked: Asked
) -> None:
    door = OrderDoor("127.0.0.1:0", token, asked)
    kept = http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
    headers = {TOKEN_HEADER: "Bearer word"}
    with contextlib.closing(kept):
        kept.request("GET", STATUS, headers=headers)
        assert kept.getresponse().read() == HEARD.body
        door.close()
        with contextlib.suppress(OSError, http.client.HTTPException):  # cut off, or refused
            kept.request("GET", STATUS, headers=headers)
            assert kept.getresponse().status == 503
    assert len(asked.requests) == 1


def test_what_is_being_answered_when_the_door_closes_is_answered(token: Path) -> None:
    came, go = threading.Event(), threading.Event()

    def slowly(_: Request) -> Reply:
        came.set()
        go.wait(60)
        return HEARD

    door = OrderDoor("127.0.0.1:0", token, slowly)
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", door.port, timeout=60)
    ) as connection:
        connection.request("GET", STATUS, headers={TOKEN_HEADER: "Bearer word"})
        assert came.wait(60)
        door.close()
        go.set()
        assert connection.getresponse().read() == HEARD.body


def test_an_order_whose_client_went_before_its_end_is_not_followed(
    token: Path, asked: Asked
) -> None:
    door = OrderDoor("127.0.0.1:0", token, asked)
    head = f"POST {ROLLBACK} HTTP/1.1\r\n{TOKEN_HEADER}: Bearer word\r\nContent-Length: 9\r\n\r\n"
    with socket.create_connection(("127.0.0.1", door.port), 60) as gone:
        gone.sendall(f"{head}{{}}".encode())
        gone.shutdown(socket.SHUT_WR)
        assert gone.recv(1) == b""
    door.close()
    assert asked.requests == []


def test_whoever_is_refused_is_cut_off(door: OrderDoor) -> None:
    with socket.create_connection(("127.0.0.1", door.port), 60) as stranger:
        stranger.sendall(f"GET {STATUS} HTTP/1.1\r\n\r\n".encode())
        answer = b""
        while piece := stranger.recv(1000):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("wrong", ["8081", "host:", ":80", "host:99999", "host:x"])
def test_an_address_that_is_none_is_refused(token: Path, asked: Asked, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        OrderDoor(wrong, token, asked)


def test_a_port_that_is_taken_is_named(door: OrderDoor, token: Path, asked: Asked) -> None:
    with pytest.raises(ConfigurationError, match=str(door.port)):
        OrderDoor(f"127.0.0.1:{door.port}", token, asked)


def test_orders_need_a_token() -> None:
    with pytest.raises(ConfigurationError, match="without a token"):
        read_settings({"reports": "a/b", "orders": "127.0.0.1:1"})
