"""A proxy in a thread that tunnels, or refuses to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class StandInProxy:
    """Takes CONNECT and goes to localhost, whatever host was named.

    Attributes:
        refusal: line of the status that it refuses with; empty where it tunnels.
        seen: what each client sent before the tunnel.
    """

    def __init__(self, refusal: str = "") -> None:
        self.refusal = refusal
        self.seen: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.05)
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                came, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(came,), daemon=True).start()

    def _serve(self, came: socket.socket) -> None:
        with came:
            head = b""
            while b"\r\n\r\n" not in head:
                data = came.recv(4096)
                if not data:
                    return
                head += data
            self.seen.append(head.decode())
            if self.refusal:
                page = b"<html>no</html>"
                came.sendall(
                    f"HTTP/1.1 {self.refusal}\r\nContent-Length: {len(page)}\r\n\r\n".encode()
                    + page
                )
                return
            port = int(head.split()[1].rpartition(b":")[2])
            with socket.create_connection(("127.0.0.1", port)) as far:
                came.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(far, came), daemon=True)
                back.start()
                _pump(came, far)
                back.join(60)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def proxying(refusal: str = "") -> Iterator[StandInProxy]:
    """A proxy that is up."""
    proxy = StandInProxy(refusal)
    proxy._thread.start()
    try:
        yield proxy
    finally:
        proxy._over.set()
        proxy._thread.join()
        proxy._listening.close()
