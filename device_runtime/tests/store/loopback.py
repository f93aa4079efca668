"""A real HTTP server of blobs on loopback that drops connections, throttles and lies on request."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from edgefleet.protocol.digest import blob_path, digest_of


class BlobServer(ThreadingHTTPServer):
    """Serves blobs with ranges.

    ``script`` gives the next replies, one word each, before it serves honestly: a status, such
    as ``503`` or ``429;7`` with Retry-After, ``drop`` (half of the bytes, then the end),
    ``lie`` (wrong bytes), ``shift`` (another range than asked for).
    """

    daemon_threads = True

    def __init__(self, blobs: list[bytes], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.blobs = {f"/fleet/{blob_path(digest_of(data))}": data for data in blobs}
        self.script: list[str] = []
        self.ranges: list[str | None] = []
        self.sent = 0
        self.together = threading.Barrier(1)
        self.lock = threading.Lock()
        self.scheme = "http"
        if tls is not None:
            self.scheme = "https"
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, or trusts nobody, is none of a server's errors."""

    @property
    def address(self) -> str:
        return f"{self.scheme}://localhost:{self.server_port}/fleet"


class Handler(BaseHTTPRequestHandler):
    server: BlobServer
    wbufsize = -1

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        with self.server.lock:
            step = self.server.script.pop(0) if self.server.script else ""
            self.server.ranges.append(asked)
        status, _, after = step.partition(";")
        if status.isdigit():
            self.send_response(int(status))
            if after:
                self.send_header("Retry-After", after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = self.server.blobs.get(self.path)
        if data is None:
            self.send_error(404)
            return
        self.server.together.wait(90)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if step == "shift":
            start += 1
        part = data[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(part)))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if step == "drop":
            part = part[: len(part) // 2]
        if step == "lie":
            part = b"?" * len(part)
        with self.server.lock:
            self.server.sent += len(part)
        self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@contextmanager
def serving_blobs(*blobs: bytes, tls: ssl.SSLContext | None = None) -> Iterator[BlobServer]:
    with BlobServer(list(blobs), tls) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
