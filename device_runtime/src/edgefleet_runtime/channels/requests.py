"""Requests that an operator sends to a device over its channel, and how the device answers them.

A channel that can carry them is given a callable that asks the runtime's own server, so that what
the server refuses to strangers it refuses to them as well.
"""

from __future__ import annotations

import http.client
import queue
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

WORKERS = 4  # requests that are answered at once
MAX_WAITING = 32  # beyond them
TIMEOUT_S = 60.0  # of the server's answer
MAX_REPLY_BYTES = 16 << 20


class Request(NamedTuple):
    """One exchange; a body of None makes it a GET, else it is a POST."""

    path: str
    headers: Mapping[str, str]
    body: bytes | None


class Reply(NamedTuple):
    """The server's answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A request on the wire: JSON, the body in base64."""

    path: str
    headers: dict[str, str] = {}
    body: bytes | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An answer on the wire; ``error`` says why there is none."""

    status: int = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    error: str = ""


def answer_to(message: Message, ask: Callable[[Request], Reply]) -> Answer:
    """What the runtime's server answers, or why it doesn't."""
    try:
        reply = ask(Request(message.path, message.headers, message.body))
    except EdgeFleetError as error:
        return Answer(error=error.message)
    return Answer(status=reply.status, headers=dict(reply.headers), body=reply.body)


class Workers(Generic[T]):
    """Threads that work off requests, several at once, until `close`.

    Args:
        work: called with each; raises nothing.
        name: of the threads.
    """

    def __init__(self, work: Callable[[T], None], name: str) -> None:
        self._work = work
        self._waiting: queue.Queue[T | None] = queue.Queue(MAX_WAITING)
        self._closed = False
        for number in range(WORKERS):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    def put(self, request: T) -> bool:
        """Take a request; returns at once: False, when too many wait already, or after `close`."""
        if self._closed:
            return False
        try:
            self._waiting.put_nowait(request)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """End the threads, each after what it works on; what waits is dropped."""
        self._closed = True
        for _ in range(WORKERS):  # to wake those who wait for a request
            with suppress(queue.Full):  # then nobody does
                self._waiting.put_nowait(None)

    def _run(self) -> None:
        while (request := self._waiting.get()) is not None and not self._closed:
            self._work(request)


def asker(endpoint: Callable[[], str]) -> Callable[[Request], Reply]:
    """A callable that asks the server of this device.

    Args:
        endpoint: gives its address now; one on a Unix socket can't be asked.
    """

    def ask(request: Request) -> Reply:
        if not request.path.startswith("/"):
            raise InvalidInputError(f"a path begins with a slash: {request.path[:200]!r}")
        address = urlsplit(endpoint())
        if address.scheme != "http" or address.hostname is None:
            raise UnavailableError("the runtime serves no plain HTTP on this device")
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT_S)
        try:
            method = "GET" if request.body is None else "POST"
            connection.request(method, request.path, request.body, dict(request.headers))
            answer = connection.getresponse()
            body = answer.read(MAX_REPLY_BYTES + 1)
            headers = {name.lower(): value for name, value in answer.getheaders()}
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise UnavailableError(f"the runtime's server doesn't answer: {error}") from error
        finally:
            connection.close()
        if len(body) > MAX_REPLY_BYTES:
            raise LimitExceededError(f"an answer is longer than {MAX_REPLY_BYTES} bytes")
        return Reply(answer.status, headers, body)

    return ask
