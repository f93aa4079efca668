"""Sockets: uvicorn's HTTP protocol with the peer's certificate, deadlines and limits.

Rules kept here:

- Each state of a connection has a deadline: the request's head, each stretch of its body, an
  answer that the client doesn't read. One sweep a second ends what is past its own; uvicorn's timer
  ends one that is idle between two requests, also one whose client says what begins no request.
- A connection that is lost is freed at once, without the garbage collector.
- A head has an end, in bytes and in fields. What the parser refuses, such as both a length and a
  transfer coding, ends the connection.
- What is refused is told in its turn: no byte of it comes before the answers that are due.
- Strangers, without a certificate, may hold only some of the connections.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import Server

from edgefleet.protocol.gateway import PROBLEM_TYPE, Problem
from edgefleet_gateway.server.problems import problem_body

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

    from starlette.requests import Request
    from uvicorn.config import Config

CONNECTION = "edgefleet.connection"
"""Key of the connection in an ASGI scope."""
SWEEP_S = 1.0
_LONG_HEAD = Problem(title="the request's head is too long", status=431)
_NEVER = float("inf")


class Limits(NamedTuple):
    """What one connection, and all of them, may take.

    Attributes:
        handshake_s: until TLS stands.
        head_s: from the connection or a request's first byte to the end of its head.
        body_s: between two stretches of a body, each of `body_bytes` at least.
        body_bytes: what must come within ``body_s``, or the rest of the body.
        reading_s: that a client may leave an answer unread.
        idle_s: between two requests.
        head_bytes: of request line and header fields.
        fields: header fields.
        connections: at once.
        strangers: of them without a certificate.
    """

    handshake_s: float = 10.0
    head_s: float = 10.0
    body_s: float = 20.0
    body_bytes: int = 16 << 10
    reading_s: float = 30.0
    idle_s: int = 90  # above what the runtime keeps a connection for
    head_bytes: int = 16 << 10
    fields: int = 64
    connections: int = 20_000
    strangers: int = 256


class Wire(Server):
    """uvicorn's server, listening by our limits.

    Args:
        config: of uvicorn; its ``http`` is `protocol_of` these limits.
        limits: of connections.
        listening: socket that listens; closed when the server begins to end.
        tls: of the listening side.
        ending: called when the server begins to end, so that nobody waits for news.
        started: called when it answers.
    """

    def __init__(
        self,
        config: Config,
        *,
        limits: Limits,
        listening: socket.socket,
        tls: ssl.SSLContext,
        ending: Callable[[], None],
        started: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self.limits = limits
        self._listening = listening
        self._tls = tls
        self._ending = ending
        self._tell_started = started
        self.strangers = 0
        self._sweeping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        self.servers = [await self._listen()]
        self._sweeping = loop.create_task(self._sweep())
        self.started = True
        self._tell_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._ending()
        self._listening.close()  # nobody is to wait in its queue
        await super().shutdown(sockets)
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def serve_with(self, tls: ssl.SSLContext) -> None:
        """Take new connections with another context; those that stand end after their answer."""
        self._tls = tls
        before, self.servers = self.servers, [await self._listen()]
        for server in before:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _listen(self) -> asyncio.Server:
        # The socket is another handle of the one that listens, so that none who knocks is lost.
        return await asyncio.get_running_loop().create_server(
            self._connection,
            sock=self._listening.dup(),
            ssl=self._tls,
            backlog=self.config.backlog,
            ssl_handshake_timeout=self.limits.handshake_s,
            ssl_shutdown_timeout=1.0,
        )

    def _connection(self) -> Connection:
        return Connection(self)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._expire()

    def _expire(self) -> None:
        # By itself, so that no name holds the last connection until the next sweep finds another.
        now = asyncio.get_running_loop().time()
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection):
                connection.expire(now)


class Connection(HttpToolsProtocol):
    """One connection.

    Attributes:
        certificate: that the client showed, in DER; TLS has checked it but for its dates.
        deadline: of what the client sends, by the event loop's clock.
        unread: of an answer that it doesn't read, likewise.
        gone: whether the client is.
        waiter: ends a wait of the request at hand when the client goes.
    """

    def __init__(self, wire: Wire) -> None:
        super().__init__(
            config=wire.config, server_state=wire.server_state, app_state=wire.lifespan.state
        )
        self._wire = wire
        self._limits = wire.limits
        self.certificate: bytes | None = None
        self.deadline = self.unread = _NEVER
        self.gone = False
        self.waiter: asyncio.Future[None] | None = None
        self._fields = 0
        self._head_bytes = 0
        self._raw_bytes = 0  # of a head that isn't whole yet
        self._heads = 0  # that were whole
        self._refusal: Problem | None = None
        self._refused = False  # nothing more is read
        self._unanswered = 0  # requests whose heads were whole
        self._due = 0  # bytes of the body that must still come before the deadline moves
        self._in_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.certificate = tls.getpeercert(binary_form=True)
        self._wire.strangers += self.certificate is None
        super().connection_made(transport)
        crowded = len(self.connections) > self._limits.connections or (
            self.certificate is None and self._wire.strangers > self._limits.strangers
        )
        if crowded:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.deadline = self.unread = _NEVER
        self._wire.strangers -= self.certificate is None
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        super().connection_lost(exc)
        # A request's scope leads back here. What goes in a circle, with its TLS buffers, waits for
        # a full collection: with many connections that is minutes, and stops the loop meanwhile.
        self._unset_keepalive_if_required()
        self.scope = self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()

    def expire(self, now: float) -> None:
        """End a connection that is past a deadline, without a word if need be."""
        if min(self.deadline, self.unread) >= now:
            return
        if self._in_head and (self._raw_bytes or self._heads) and self.unread >= now:
            self._refusal = Problem(title="the request's head took too long", status=408)
            self.send_400_response("")
        else:
            self.deadline = self.unread = _NEVER
            self.transport.abort()

    # --------------------------------------------------------------------------- of the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[literal-required]
        self._fields = self._head_bytes = 0
        if not self._in_head:
            self._await_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._heads += 1
        self._raw_bytes = 0
        self._await_body()
        super().on_headers_complete()
        self._unanswered += 1

    def on_body(self, body: bytes) -> None:
        self._due -= len(body)
        if self._due <= 0:
            self._await_body()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.deadline = _NEVER
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.waiter = None
        self._unanswered -= 1
        if self._refused and not self._unanswered and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._refuse()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        before = self._heads if self._in_head else -1
        super().data_received(data)
        if before == self._heads and self._in_head and not self.transport.is_closing():
            # The parser gives a field when it is whole, and an endless one never is.
            self._raw_bytes += len(data)
            if self._raw_bytes > self._limits.head_bytes:
                self._refusal = _LONG_HEAD
                self.send_400_response("")
        elif self._is_idle and not self.transport.is_closing():
            # Whatever comes stops uvicorn's timer, also blank lines, and the rest of a body that
            # was answered unread.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    @property
    def _is_idle(self) -> bool:
        """Whether all that was asked is answered, and nothing is being asked."""
        if self.cycle is None:  # before the first
            return False  # type: ignore[unreachable]
        return self.cycle.response_complete and not self._in_head and not self.pipeline

    def send_400_response(self, msg: str) -> None:
        if self._refused:
            return
        self._refused = True
        cycle = self.cycle
        if self._unanswered and cycle.more_body and not cycle.response_started:
            # It is this request that can't be read on, and this is its answer.
            self._unanswered -= 1
            cycle.disconnected = True
            cycle.message_event.set()
            if self.pipeline:
                self.pipeline.popleft()
            self.deadline = _NEVER
        elif self._in_head:
            self.deadline = _NEVER
        if not self._unanswered:
            self._refuse()

    def _refuse(self) -> None:
        problem = self._refusal or Problem(title="no HTTP request that is served here", status=400)
        body = problem_body(problem)
        head = (
            f"HTTP/1.1 {problem.status} Refused\r\ncontent-type: {PROBLEM_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    # --------------------------------------------------------------------------- of the transport

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = self.loop.time() + self._limits.reading_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread = _NEVER

    def _await_head(self) -> None:
        self._in_head = True
        self.deadline = self.loop.time() + self._limits.head_s

    def _await_body(self) -> None:
        self._due = self._limits.body_bytes
        self.deadline = self.loop.time() + self._limits.body_s

    def _count(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._limits.head_bytes or self._fields > self._limits.fields:
            self._refusal = _LONG_HEAD
            raise ValueError(_LONG_HEAD.title)  # the parser stops, and `send_400_response` tells


def connection_of(request: Request) -> Connection:
    """The connection of a request."""
    connection: Connection = request.scope[CONNECTION]
    return connection
