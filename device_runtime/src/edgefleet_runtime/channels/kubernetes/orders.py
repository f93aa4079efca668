"""The door that an operator's orders come through: a port of the pod, behind a token of its own.

The operator reaches it by the API server's proxy for pods, which lets in whom a role allows. Rules
kept here:

- Orders only: requests to models go to the server, which applications on the node ask, too. They
  have that server's token and not this one.
- The token's file is read for each request, so that another one counts at once.
- Bodies, connections, and how many orders are followed at once, are bounded. A request has to be
  there, and its answer to be taken, within `PATIENCE_S` each, however many bytes come meanwhile;
  whoever is refused is cut off. Who comes when all connections are taken finds a closed door.
- A door that was closed hears nothing more, on connections that were open before neither.
"""

from __future__ import annotations

import hmac
import io
import logging
import socket
import threading
import time
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConfigurationError
from edgefleet.protocol.orders import MAX_ORDER, PREFIX
from edgefleet_runtime.channels.requests import Request

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.channels.requests import Reply

TOKEN_HEADER = "Edgefleet-Authorization"  # noqa: S105 - the API server keeps Authorization to itself
MAX_TOKEN = 4096
MAX_AT_ONCE = 4
MAX_CONNECTIONS = 32  # each has a thread, before it has shown a token
MAX_PORT = 65535
PATIENCE_S = 30.0  # with a slow client, for all of a request, and again for all of its answer
_log = logging.getLogger(__name__)


class OrderDoor:
    """Listens for orders until it is closed.

    Args:
        address: ``HOST:PORT``; the host of an IPv6 address in brackets.
        token: file with the token.
        ask: answers a request.
        patience_s: longest wait for all of a request, and for its answer to be taken.

    Raises:
        ConfigurationError: the address is none, or nobody can listen there.
    """

    def __init__(
        self,
        address: str,
        token: Path,
        ask: Callable[[Request], Reply],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._token, self._ask, self._patience_s = token, ask, patience_s
        self._room = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._closed = threading.Event()
        try:
            self._server = _Server(_place(address), self._handler())
        except OSError as error:
            raise ConfigurationError(
                f"channel kubernetes: orders can't be heard at {address}: {error.strerror}",
                cure="give orders=HOST:PORT, an address of this pod and a free port",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="orders", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Hear no more; what is being answered is answered."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._server.hear_no_more()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = door._patience_s  # of an answer: sendall counts it over all of its bytes
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                self.rfile.close()
                self._request = _Request(self.connection, door._patience_s)
                self.rfile = io.BufferedReader(self._request)

            def handle_one_request(self) -> None:
                self._request.begin()
                super().handle_one_request()

            def do_GET(self) -> None:
                door.answer(self, None)

            def do_POST(self) -> None:
                told = self.headers.get("Content-Length", "")
                if not told.isascii() or not told.isdigit() or int(told) > MAX_ORDER:
                    _refuse(self, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"an order is short")
                    return
                body = self.rfile.read(int(told))
                if len(body) < int(told):  # the client went, or the door was closed
                    self.close_connection = True
                    return
                door.answer(self, body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
                _log.debug(format, *args)

        return Handler

    def answer(self, exchange: BaseHTTPRequestHandler, body: bytes | None) -> None:
        """Answer one request."""
        if self._closed.is_set():
            _refuse(exchange, HTTPStatus.SERVICE_UNAVAILABLE, b"no more orders are heard")
        elif not self._is_known(exchange.headers.get(TOKEN_HEADER, "")):
            _refuse(exchange, HTTPStatus.UNAUTHORIZED, b"another token is needed for orders")
        elif not exchange.path.startswith(PREFIX):
            _refuse(exchange, HTTPStatus.NOT_FOUND, b"orders only are heard here")
        elif not self._room.acquire(blocking=False):
            _refuse(exchange, HTTPStatus.SERVICE_UNAVAILABLE, b"too many orders at once")
        else:
            try:
                reply = self._ask(Request(exchange.path, dict(exchange.headers.items()), body))
            finally:
                self._room.release()
            kind = reply.headers.get("content-type", "application/json")
            _send(exchange, HTTPStatus(reply.status), reply.body, kind)

    def _is_known(self, shown: str) -> bool:
        try:
            with self._token.open("rb") as file:
                token = file.read(MAX_TOKEN).strip()
        except OSError:
            return False
        wanted = b"Bearer " + token
        return bool(token) and hmac.compare_digest(shown.encode("utf-8", "replace"), wanted)


class _Request(io.RawIOBase):
    """What a client sends, for as long as it may take for a request.

    Args:
        connection: with the client.
        patience_s: seconds for a request, from `begin` on.
    """

    def __init__(self, connection: socket.socket, patience_s: float) -> None:
        self._connection, self._patience_s = connection, patience_s
        self._end = 0.0

    def begin(self) -> None:
        """Wait for another request."""
        self._end = time.monotonic() + self._patience_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - a buffer
        left_s = self._end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left_s)
        try:
            return self._connection.recv_into(buffer)
        finally:
            self._connection.settimeout(self._patience_s)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        super().__init__(place, handler)

    def hear_no_more(self) -> None:
        """Read nothing more of any connection; answers that are under way still go out."""
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's
        """Answer a connection in a thread of its own, where there is room for one."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._left(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - likewise
        """Answer a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._left(request)

    def _left(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - likewise
        """Note what ended a connection; the base prints it."""
        _log.debug("a connection for orders broke off", exc_info=True)

    def server_bind(self) -> None:
        """Bind, and look no name up: a pod's DNS may be what fails."""
        TCPServer.server_bind(self)


def _place(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")  # around an address of either family
    digits = port.isascii() and port.isdecimal() and len(port) <= len(str(MAX_PORT))
    if not (colon and host and digits and int(port) <= MAX_PORT):
        raise ConfigurationError(
            f"channel kubernetes: orders {address[:300]!r} is no HOST:PORT",
            cure="write orders=HOST:PORT",
        )
    return host, int(port)


def _refuse(exchange: BaseHTTPRequestHandler, status: HTTPStatus, why: bytes) -> None:
    exchange.close_connection = True
    _send(exchange, status, why)


def _send(
    exchange: BaseHTTPRequestHandler,
    status: HTTPStatus,
    body: bytes,
    kind: str = "text/plain; charset=utf-8",
) -> None:
    exchange.send_response(status)
    exchange.send_header("Content-Type", kind)
    exchange.send_header("Content-Length", str(len(body)))
    if exchange.close_connection:
        exchange.send_header("Connection", "close")
    exchange.end_headers()
    exchange.wfile.write(body)
