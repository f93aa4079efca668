"""A mock cloud's front door: an HTTP server on loopback for one WSGI application.

Rules kept here:

- A connection stays open between calls, as a real service's does; all are closed when the server
  stops, so that nobody is answered by a cloud that is gone.
- ``Expect: 100-continue`` is answered at once, and an answer leaves in one piece: clients wait for
  either, and each wait costs more than the call. An answer that the application gives part by part
  leaves part by part, its head with the first part, even an empty one.
- What the application leaves of a request's body is read and dropped, within `MAX_LEFT_BYTES`.
- An application that raises ConnectionError has cut the connection: the client sees that at once,
  whatever it is about to send.
"""

from __future__ import annotations

import io
import logging
import socket
import ssl
import threading
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MAX_LINES = 100_000  # of the journal
MAX_LEFT_BYTES = 64 << 20  # of a body that nobody read; beyond it the connection is closed
IDLE_S = 120.0  # a connection on which nothing is asked for so long is closed

_log = logging.getLogger(__name__)


class Journal:
    """What a cloud saw, a line a call; the newest `MAX_LINES` are kept."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_LINES)

    def note(self, came: datetime, name: str, path: str, status: str) -> None:
        """Write a line.

        Args:
            came: when the call came.
            name: ``service.operation``.
            path: of the address, without what identifies the caller.
            status: of the answer, or ``cut``.
        """
        self._lines.append(f"{came:%H:%M:%S.%f} {name} {path} {status}")

    def noting(self, start: StartResponse, name: str, path: str) -> StartResponse:
        """A WSGI ``start_response`` that writes the line of a call that comes now."""
        came = datetime.now(UTC)

        def started(status: str, headers: Any, info: Any = None, /) -> Any:  # noqa: ANN401 - WSGI's
            self.note(came, name, path, status.split(" ", 1)[0])
            return start(status, headers) if info is None else start(status, headers, info)

        return started

    def lines(self) -> Iterator[str]:
        """Oldest first."""
        yield from tuple(self._lines)


class _Server(ThreadedWSGIServer):
    """A thread a connection, and none that keeps the process up."""

    daemon_threads = True
    connections: set[socket.socket]


class Handler(WSGIRequestHandler):
    """Speaks HTTP/1.1 on one connection."""

    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = IDLE_S

    def handle_expect_100(self) -> bool:
        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.wfile.flush()
        return True

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        """Close both ways, also when the client went before it had its answer."""
        self.server.connections.discard(self.connection)
        try:
            super().finish()
        except OSError:
            self.rfile.close()

    def run_wsgi(self) -> None:
        """Answer one request."""
        environ = self.make_environ()
        length = int(environ.get("CONTENT_LENGTH") or 0)
        chunked = "chunked" in str(environ.get("HTTP_TRANSFER_ENCODING", "")).lower()
        raw = environ["wsgi.input"] if chunked else _Body(self.rfile, length)
        body = environ["wsgi.input"] = io.BufferedReader(raw)
        environ["wsgi.input_terminated"] = True
        answer = _Answer(self, head=environ["REQUEST_METHOD"] == "HEAD")
        try:
            answer.send(self.server.app, environ)
        except (ConnectionError, ssl.SSLEOFError) as error:
            self.connection_dropped(error, environ)
            return
        except Exception:  # noqa: BLE001 - the application is at fault, and the server goes on
            _log.exception("%s %s", self.command, self.path.partition("?")[0])
            self.close_connection = True
            if not answer.started:
                self.send_error(500)
            return
        self._drop_rest(body)

    def _drop_rest(self, body: io.BufferedReader) -> None:
        left = MAX_LEFT_BYTES
        while left > 0 and (data := body.read(min(left, 1 << 16))):
            left -= len(data)
        self.close_connection = self.close_connection or left <= 0

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's name
        """Nothing: the journal tells what was called."""

    def connection_dropped(self, error: BaseException, environ: Any = None) -> None:  # noqa: ANN401
        self.close_connection = True


class _Body(io.RawIOBase):
    """A request's body: so many bytes of a connection."""

    def __init__(self, stream: Any, left: int) -> None:  # noqa: ANN401 - a stream
        self._stream, self._left = stream, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - a buffer
        wanted = min(len(buffer), self._left)
        if wanted == 0:
            return 0
        data = self._stream.read1(wanted)
        if not data:
            raise ConnectionResetError("the client went in the middle of its request")
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)


class _Answer:
    """What one call is answered.

    Args:
        handler: of its connection.
        head: whether the request was HEAD, whose answer has no body.

    Attributes:
        started: whether something was sent.
    """

    def __init__(self, handler: Handler, *, head: bool) -> None:
        self._handler = handler
        self._head = head
        self._status = ""
        self._headers: list[tuple[str, str]] = []
        self._chunked = False
        self.started = False

    def send(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        """Have the application answer, and send what it gives."""
        parts = app(environ, self._start)
        try:
            self._send_parts(parts)
        finally:
            if hasattr(parts, "close"):
                parts.close()
        self._handler.wfile.flush()

    def _start(self, status: str, headers: list[tuple[str, str]], info: Any = None, /) -> Any:  # noqa: ANN401
        self._status, self._headers = status, headers
        return self._write

    def _send_parts(self, parts: Iterable[bytes]) -> None:
        whole = isinstance(parts, list)
        for data in parts:
            self._write(data)
            if not whole:
                self._handler.wfile.flush()
        if not self.started:
            self._begin()
        if self._chunked:
            self._handler.wfile.write(b"0\r\n\r\n")

    def _begin(self) -> None:
        self.started = True
        code, _, reason = self._status.partition(" ")
        status = int(code)
        names = {name.lower() for name, _ in self._headers}
        without = self._head or status < 200 or status in {204, 304}
        self._chunked = not without and "content-length" not in names
        handler = self._handler
        handler.send_response(status, reason)
        for name, value in self._headers:
            handler.send_header(name, value)
        if self._chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        self._head = without

    def _write(self, data: bytes) -> None:
        if not self.started:
            self._begin()
        if not data or self._head:
            return
        write = self._handler.wfile.write
        if self._chunked:
            write(b"%x\r\n" % len(data))
            write(data)
            write(b"\r\n")
        else:
            write(data)


class Front:
    """A server on loopback; runs from `start` to `stop`.

    Args:
        name: of its thread.
        app: answers each request.
        tls: to serve HTTPS with; None for plain HTTP.
        handler: speaks HTTP.
        host: an address of loopback.
    """

    def __init__(
        self,
        name: str,
        app: WSGIApplication,
        *,
        tls: ssl.SSLContext | None = None,
        handler: type[Handler] = Handler,
        host: str = "127.0.0.1",
    ) -> None:
        self._name, self._app, self._tls, self._handler = name, app, tls, handler
        self._host = host
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    @property
    def port(self) -> int:
        """Of the running server; 0 for one that doesn't run."""
        return 0 if self._server is None else int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Address of the running server; by name where it speaks TLS, as certificates are."""
        if self._tls is not None:
            return f"https://localhost:{self.port}"
        return f"http://{self._host}:{self.port}"

    def start(self, port: int = 0) -> None:
        """Listen; no error when it does already.

        Args:
            port: the one to listen on where it is free; where it isn't, and for 0, any.
        """
        if self._server is not None:
            return
        with self._listening(port) as listener:
            host, port = listener.getsockname()
            server = _Server(host, port, self._app, self._handler, fd=listener.fileno())
            server.connections = set()
        if self._tls is not None:
            server.ssl_context = self._tls
            # The connection's own thread shakes hands: a slow client makes nobody wait.
            server.socket = self._tls.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, args=(0.02,), name=self._name, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and close every connection; may be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            for connection in tuple(server.connections):
                _shut(connection)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _listening(self, port: int) -> socket.socket:
        try:
            return socket.create_server((self._host, port))
        except OSError:
            return socket.create_server((self._host, 0))


def _shut(connection: socket.socket) -> None:
    try:
        # Not TLS's own goodbye, which its thread may be in the middle of a read with.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        return  # gone already
