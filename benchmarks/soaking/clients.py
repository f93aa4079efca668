"""Clients that a server meets: one that behaves, and each kind that doesn't.

A bad client's round is over when the server has ended it, so that no timing of ours decides what
was tried.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
import zlib
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    class Client(Protocol):
        """A client of any kind."""

        name: str
        failures: list[str]

    Address = tuple[str, int]

WAIT_S = 120.0  # for an answer, or for the server to end a connection
MIB = 1 << 20
_CHANCE = random.Random(2026)  # noqa: S311 - for variety, not for secrets
_POST = b"POST /v2/models/m/infer HTTP/1.1\r\n"
_ABORTING = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class GoodClient(threading.Thread):
    """Asks without a pause on one connection and holds every answer against what is due.

    Attributes:
        latencies: seconds of each answer since they were last taken.
        failures: what went wrong; must stay empty.
    """

    def __init__(self, address: Address, stop: threading.Event, number: int) -> None:
        super().__init__(name=f"good-{number}")
        self.latencies: deque[float] = deque()
        self.failures: list[str] = []
        self._address = address
        self._ended = stop
        self._number = number

    def run(self) -> None:
        client: socket.socket | None = None
        turn = 0
        while not self._ended.is_set():
            turn += 1
            x = float(self._number * 1_000_000 + turn % 1000)
            start = time.perf_counter()
            try:
                client = client or socket.create_connection(self._address, WAIT_S)
                status, content = _asked(client, x)
                if status != 200 or content["outputs"][0]["data"] != [x + 1]:
                    self.failures.append(f"{status} {content}")
            except Exception as error:  # noqa: BLE001 - whatever fails is counted
                self.failures.append(repr(error))
                if client is not None:
                    client.close()
                client = None
            self.latencies.append(time.perf_counter() - start)
        if client is not None:
            client.close()

    def taken(self) -> list[float]:
        """The latencies since the last call."""
        return [self.latencies.popleft() for _ in range(len(self.latencies))]


def _asked(client: socket.socket, x: float) -> tuple[int, Any]:
    """Status and content of an answer.

    All is sent at once: a client that is taken off its core in between isn't one that is slow.
    """
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [x]}
    body = json.dumps({"inputs": [tensor]}).encode()
    client.sendall(_POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = http.client.HTTPResponse(client, method="POST")
    answer.begin()
    return answer.status, json.loads(answer.read())


class BadClient(threading.Thread):
    """Does the same bad thing again and again; ``rounds`` counts how often the server ended it."""

    def __init__(self, kind: str, address: Address, stop: threading.Event) -> None:
        super().__init__(name=kind)
        self.rounds = 0
        self.failures: list[str] = []
        self._address = address
        self._ended = stop
        self._round = KINDS[kind]

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                with (
                    socket.create_connection(self._address, WAIT_S) as client,
                    contextlib.suppress(ConnectionError),
                ):
                    self._round(client, self._ended)
            except OSError as error:
                self.failures.append(repr(error))
            self.rounds += 1


def _drained(client: socket.socket) -> None:
    """Read until the server closes; it must, within `WAIT_S`."""
    while client.recv(1 << 16):
        pass


def _slowloris(client: socket.socket, stop: threading.Event) -> None:
    client.sendall(b"GET /v2 HTTP/1.1\r\nA: ")
    while not stop.wait(0.02):
        client.sendall(b"b")
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            if not client.recv(1 << 16):
                return
        client.settimeout(WAIT_S)


def _half_body(client: socket.socket, _: threading.Event) -> None:
    client.sendall(_POST + b"Content-Length: 9000\r\n\r\n" + b"[" * _CHANCE.randrange(9000))
    _drained(client)


def _oversized(client: socket.socket, _: threading.Event) -> None:
    client.sendall(_POST + b"Transfer-Encoding: chunked\r\n\r\n")
    piece = bytes(1 << 16)
    for _turn in range(20):
        client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
    client.shutdown(socket.SHUT_WR)
    _drained(client)


def _bomb(client: socket.socket, _: threading.Event) -> None:
    body = _BOMB
    head = b"Connection: close\r\nContent-Encoding: deflate\r\nContent-Length: %d\r\n\r\n"
    client.sendall(_POST + head % len(body) + body)
    _drained(client)


def _garbage(client: socket.socket, _: threading.Event) -> None:
    client.sendall(_CHANCE.randbytes(_CHANCE.randrange(1, 4000)) + b"\r\n\r\n")
    client.shutdown(socket.SHUT_WR)
    _drained(client)


def _reset(client: socket.socket, stop: threading.Event) -> None:
    body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
    client.sendall(_POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORTING)
    stop.wait(0.005)  # else this client alone would take a core


def _deaf(client: socket.socket, stop: threading.Event) -> None:
    """Asks for more than the kernel's buffers hold, and reads none of it."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    while not stop.is_set():
        client.sendall(b"GET /v2/models/m HTTP/1.1\r\n\r\n" * 500)  # blocks until we are cut


_BOMB = zlib.compress(bytes(20 * MIB), 9)

KINDS: dict[str, Callable[[socket.socket, threading.Event], None]] = {
    "slowloris": _slowloris,
    "half body": _half_body,
    "oversized": _oversized,
    "bomb": _bomb,
    "garbage": _garbage,
    "reset": _reset,
    "deaf": _deaf,
}


def failures_of(clients: Iterable[Client]) -> Counter[str]:
    """What went wrong with any client, and how often."""
    return Counter(f"{client.name}: {what}" for client in clients for what in client.failures)
