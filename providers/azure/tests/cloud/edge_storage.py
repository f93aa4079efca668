"""A storage account for tests of devices: one folder to read, one to write, signatures that end."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from edgefleet.testing.cloud.authority import Authority

READ, WRITE = "sv=2024-11-04&sp=r&sig=read", "sv=2024-11-04&sp=c&sig=write"


class Storage(ThreadingHTTPServer):
    """Serves ``/models`` from a folder, and takes ``/devices/<name>/…`` in, once each."""

    daemon_threads = True

    def __init__(self, models: Path, authority: Authority) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.socket = authority.context().wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.models = models
        self.read, self.write = READ, WRITE
        self.cut_at: int | None = None
        """Bytes of the next long answer after which the connection breaks, and `read` ends."""
        self.next_read = READ
        self.uploads: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str, str]] = []
        """Method, path, Range, and the code of a refusal of each call."""
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"https://localhost:{self.server_port}"

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        pass  # a client whose network was cut


class Handler(BaseHTTPRequestHandler):
    server: Storage
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        path = self._allowed(self.server.read)
        if path is None:
            return
        file = self.server.models / path.removeprefix("/models/")
        if not file.is_file():
            self._answer(404, code="BlobNotFound")
            return
        data = file.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        cut = self.server.cut_at
        if cut is not None and len(data) - start > cut:
            self.server.cut_at, self.server.read = None, self.server.next_read
            self.wfile.write(data[start : start + cut])
            self.close_connection = True
            return
        self.wfile.write(data[start:])

    def do_PUT(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the device broke off: nothing of it is stored
            self.close_connection = True
            return
        path = self._allowed(self.server.write)
        if path is None:
            return
        if path in self.server.uploads:
            self._answer(409, code="BlobAlreadyExists")
            return
        assert self.headers["If-None-Match"] == "*"
        assert self.headers["x-ms-blob-type"] == "BlockBlob"
        self.server.uploads[path] = body
        self._answer(201)

    def _allowed(self, signature: str) -> str | None:
        path, _, query = self.path.partition("?")
        refused = "" if query == signature else "AuthenticationFailed"
        self.server.seen.append((self.command, path, self.headers.get("Range", ""), refused))
        if refused:
            self._answer(403, code=refused)
            return None
        return unquote(path)

    def _answer(self, status: int, *, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("x-ms-error-code", code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
