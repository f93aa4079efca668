"""Somebody who receives CloudEvents by HTTP, and can fail in every way that a test names."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Post(NamedTuple):
    """A request that came."""

    type: str
    token: str | None
    events: list[dict[str, Any]]


class Receiver:
    """A server on loopback.

    Args:
        tls: that it serves with; None for plain HTTP.

    Attributes:
        url: its address.
        posts: requests that came, answered or not.
        taken: events of those that were answered with success.
        answers: statuses and headers of the next answers; without one it is 204.
        refuses: events that are refused with 400, alone or with others.
        holding: while it is set, nothing is answered until `released` is.
        hold_after: nothing after so many requests is answered before; None for no such number.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.posts: list[Post] = []
        self.taken: list[dict[str, Any]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.refuses: Callable[[dict[str, Any]], bool] = lambda _: False
        self.hold_after: int | None = None
        self.holding = threading.Event()
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}/events"

    def answer(self, post: Post) -> tuple[int, dict[str, str]]:
        """What a request is answered."""
        self.posts.append(post)
        late = self.hold_after is not None and len(self.posts) > self.hold_after
        if late or self.holding.is_set():
            self.released.wait(60)
        if self.answers:
            return self.answers.pop(0)
        if any(map(self.refuses, post.events)):
            return 400, {}
        self.taken += post.events
        return 204, {}

    @property
    def ids(self) -> list[str]:
        """Ids of the events that were taken."""
        return [str(event["id"]) for event in self.taken]

    @contextmanager
    def serving(self) -> Iterator[Receiver]:
        """Answer as long as the block lasts."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            kind = self.headers["Content-Type"]
            events = body if isinstance(body, list) else [body]
            status, headers = receiver.answer(Post(kind, self.headers["Authorization"], events))
            try:
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
            except ConnectionError:
                pass  # who asked has hung up

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
