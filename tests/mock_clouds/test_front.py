"""The front door of mock clouds: HTTP as clients of vendors speak it, and connections that end."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from edgefleet.testing.cloud.front import Front, Journal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

WAIT_S = 90.0  # a client that waits longer was never told


def echo(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def deaf(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
    start("403 Forbidden", [("Content-Length", "2")])
    return [b"no"]


@pytest.fixture
def serve() -> Iterator[Callable[..., Front]]:
    running: list[Front] = []

    def start(app: WSGIApplication, **options: Any) -> Front:
        running.append(Front("test", app, **options))
        running[-1].start()
        return running[-1]

    yield start
    for front in running:
        front.stop()


def client(front: Front) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", front.port, timeout=WAIT_S)


def test_a_connection_stays_open_between_calls(serve: Callable[..., Front]) -> None:
    connection = client(serve(echo))
    connection.request("PUT", "/", b"one")
    assert connection.getresponse().read() == b"one"
    kept = connection.sock
    connection.request("PUT", "/", b"two")
    assert connection.getresponse().read() == b"two"
    assert connection.sock is kept
    connection.close()


def test_a_body_that_nobody_read_is_not_taken_for_the_next_call(
    serve: Callable[..., Front],
) -> None:
    connection = client(serve(deaf))
    for _ in range(2):
        connection.request("PUT", "/", b"GET / HTTP/1.1\r\n\r\n" * 10_000)
        response = connection.getresponse()
        assert (response.status, response.read()) == (403, b"no")
    connection.close()


def test_a_body_in_chunks_is_read(serve: Callable[..., Front]) -> None:
    connection = client(serve(echo))
    connection.request("PUT", "/", iter([b"one", b"two"]), encode_chunked=True)
    assert connection.getresponse().read() == b"onetwo"
    connection.close()


def test_an_answer_without_a_length_comes_in_chunks(serve: Callable[..., Front]) -> None:
    def parts(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        start("200 OK", [])
        return iter([b"one", b"", b"two"])

    connection = client(serve(parts))
    for _ in range(2):
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"onetwo"
    connection.close()


@pytest.mark.parametrize("method,status", [("HEAD", "200 OK"), ("GET", "304 Not Modified")])
def test_an_answer_that_has_no_body_keeps_its_length(
    serve: Callable[..., Front], method: str, status: str
) -> None:
    def app(_: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        start(status, [("Content-Length", "3")])
        return [b"one"]

    connection = client(serve(app))
    for _ in range(2):
        connection.request(method, "/")
        response = connection.getresponse()
        assert (response.read(), response.headers["Content-Length"]) == (b"", "3")
    connection.close()


def test_who_asks_whether_to_send_is_told_at_once(serve: Callable[..., Front]) -> None:
    front = serve(echo)
    with socket.create_connection(("127.0.0.1", front.port), WAIT_S) as connection:
        connection.sendall(
            b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"one")
        assert b"HTTP/1.1 200 " in connection.recv(1000)


@pytest.mark.parametrize("read", [0, 1000])
def test_a_client_whose_request_is_cut_sees_it_at_once(
    serve: Callable[..., Front], read: int
) -> None:
    """werkzeug's own handler would wait for the rest, and the client for its answer."""

    def cut(environ: WSGIEnvironment, _: StartResponse) -> Iterable[bytes]:
        environ["wsgi.input"].read(read)
        raise ConnectionResetError

    connection = client(serve(cut))

    def send_most() -> None:
        connection.putrequest("PUT", "/")
        connection.putheader("Content-Length", str(8 << 20))
        connection.endheaders()
        connection.send(bytes(5 << 20))
        connection.getresponse()

    with pytest.raises(ConnectionError):  # and no TimeoutError, which is none of them
        send_most()
    connection.close()


def test_an_answer_that_is_cut_arrives_up_to_there(serve: Callable[..., Front]) -> None:
    def cut(_: WSGIEnvironment, start: StartResponse) -> Iterator[bytes]:
        start("200 OK", [("Content-Length", "9")])
        yield b"one"
        raise ConnectionResetError

    connection = client(serve(cut))
    connection.request("GET", "/")
    with pytest.raises(http.client.IncompleteRead) as raised:
        connection.getresponse().read()
    assert raised.value.partial == b"one"
    connection.close()


def test_an_application_that_fails_is_a_server_error(serve: Callable[..., Front]) -> None:
    def broken(_: WSGIEnvironment, __: StartResponse) -> Iterable[bytes]:
        raise ZeroDivisionError

    connection = client(serve(broken))
    connection.request("GET", "/")
    assert connection.getresponse().status == 500
    connection.close()


def test_nobody_is_answered_by_a_server_that_was_stopped(serve: Callable[..., Front]) -> None:
    front = serve(echo)
    connection = client(front)
    connection.request("PUT", "/", b"one")
    connection.getresponse().read()
    front.stop()
    front.stop()

    def ask_again() -> None:
        connection.request("PUT", "/", b"two")
        connection.getresponse()

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        ask_again()
    connection.close()


def test_a_port_is_taken_again_and_another_where_it_is_not_free(
    serve: Callable[..., Front],
) -> None:
    front = serve(echo)
    port = front.port
    front.stop()
    front.start(port)
    assert front.port == port
    other = Front("other", echo)
    other.start(port)
    assert other.port not in {0, port}
    other.stop()
    assert (other.port, other.running) == (0, False)


def test_a_client_that_never_shakes_hands_makes_nobody_wait(serve: Callable[..., Front]) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    front = serve(echo, tls=tls)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with socket.create_connection(("127.0.0.1", front.port), WAIT_S):
        connection = http.client.HTTPSConnection(
            "localhost", front.port, timeout=WAIT_S, context=trusting
        )
        connection.request("PUT", "/", b"one")
        assert connection.getresponse().read() == b"one"
        connection.close()
    assert front.url == f"https://localhost:{front.port}"


def test_the_journal_tells_what_was_answered(serve: Callable[..., Front]) -> None:
    journal = Journal()

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return deaf(environ, journal.noting(start, "shop.Buy", environ["PATH_INFO"]))

    connection = client(serve(app))
    connection.request("POST", "/apples?secret=1")
    connection.getresponse().read()
    connection.close()
    (line,) = journal.lines()
    assert line.split(" ")[1:] == ["shop.Buy", "/apples", "403"]


def test_calls_are_answered_at_the_same_time(serve: Callable[..., Front]) -> None:
    both = threading.Barrier(2)

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        both.wait(WAIT_S)
        return deaf(environ, start)

    front = serve(app)
    connections = [client(front) for _ in range(2)]
    for connection in connections:
        connection.request("GET", "/")
    assert [connection.getresponse().status for connection in connections] == [403, 403]
    for connection in connections:
        connection.close()
