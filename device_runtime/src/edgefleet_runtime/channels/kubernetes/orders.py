"""The door that an operator's orders come through: a port of the pod, behind a token of its own.

The operator reaches it by the API server's proxy for pods, which lets in whom a role allows. Rules
kept here:

- Orders only: requests to models go to the server, which applications on the node ask, too. They
  have that server's token and not this one.
- The token's file is read for each request, so that another one counts at once.
- Bodies, connections, and how many orders are followed at once, are bounded; who is slow is cut
  off. Who comes when all connections are taken finds a closed door.
"""

from __future__ import annotations

import hmac
import logging
import socket
import threading
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
PATIENCE_S = 30.0  # with a slow client
_log = logging.getLogger(__name__)


class OrderDoor:
    """Listens for orders until it is closed.

    Args:
        address: ``HOST:PORT``; the host of an IPv6 address in brackets.
        token: file with the token.
        ask: answers a request.

    Raises:
        ConfigurationError: the address is none, or nobody can listen there.
    """

    def __init__(self, address: str, token: Path, ask: Callable[[Request], Reply]) -> None:
        self._token, self._ask = token, ask
        self._room = threading.BoundedSemaphore(MAX_AT_ONCE)
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
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = PATIENCE_S
            wbufsize = -1  # an answer in one piece
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                door.answer(self, None)

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isascii() or not length.isdigit() or int(length) > MAX_ORDER:
                    self.close_connection = True
                    _send(self, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"an order is short")
                    return
                door.answer(self, self.rfile.read(int(length)))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
                _log.debug(format, *args)

        return Handler

    def answer(self, exchange: BaseHTTPRequestHandler, body: bytes | None) -> None:
        """Answer one request."""
        if not self._is_known(exchange.headers.get(TOKEN_HEADER, "")):
            _send(exchange, HTTPStatus.UNAUTHORIZED, b"another token is needed for orders")
        elif not exchange.path.startswith(PREFIX):
            _send(exchange, HTTPStatus.NOT_FOUND, b"orders only are heard here")
        elif not self._room.acquire(blocking=False):
            _send(exchange, HTTPStatus.SERVICE_UNAVAILABLE, b"too many orders at once")
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


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        self._room = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(place, handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - the base's
        """Answer a connection in a thread of its own, where there is room for one."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - likewise
        """Answer a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

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


def _send(
    exchange: BaseHTTPRequestHandler,
    status: HTTPStatus,
    body: bytes,
    kind: str = "text/plain; charset=utf-8",
) -> None:
    exchange.send_response(status)
    exchange.send_header("Content-Type", kind)
    exchange.send_header("Content-Length", str(len(body)))
    exchange.end_headers()
    exchange.wfile.write(body)
