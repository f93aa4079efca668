"""What actions of alarms reach: a web server and a broker, on this machine."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver(ThreadingHTTPServer):
    """Takes posts; ``status`` is its answer to each, ``hold`` what it waits for before it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204
        self.hold: threading.Event | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/alarms?line=3"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        if self.server.hold is not None:
            self.server.hold.wait(60)
        self.send_response(self.server.status)
        if self.server.status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Broker:
    """A broker that lets everybody in, and acknowledges or not; MQTT 3.1.1."""

    def __init__(self, *, acknowledges: bool = True, connects: bool = True) -> None:
        self.published: list[tuple[str, bytes]] = []
        self._acknowledges = acknowledges
        self._connects = connects
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as stream:
                self._serve(client, stream.read)

    def _serve(self, client: socket.socket, read: Callable[[int], bytes]) -> None:
        while head := read(1):
            length = shift = 0
            while True:
                (digit,) = read(1)
                length += (digit & 127) << shift
                shift += 7
                if not digit & 128:
                    break
            body = read(length)
            if head[0] >> 4 == 1 and self._connects:
                client.sendall(b"\x20\x02\x00\x00")
            elif head[0] >> 4 == 1:
                client.sendall(b"\x20\x02\x00\x05")
            elif head[0] >> 4 == 3:
                (size,) = struct.unpack_from(">H", body)
                topic, number = body[2 : 2 + size].decode(), body[2 + size : 4 + size]
                self.published.append((topic, body[4 + size :]))
                if self._acknowledges:
                    client.sendall(b"\x40\x02" + number)
