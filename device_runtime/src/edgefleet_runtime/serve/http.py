"""HTTP/1.1 over TCP and Unix sockets: a small asyncio protocol that adds no framework's cost.

Answers come in the order of their requests, one at a time a connection; keep-alive, pipelining,
chunked bodies and ``Expect: 100-continue`` work. Rules kept here:

- Nothing grows with what clients do: what they send is capped (`reader`), so are connections, and a
  client that sends or reads slowly is dropped.
- A connection is read no further while a request waits behind the one being answered, and answered
  no further while the client doesn't read.
- A refused client still gets to read why: its connection stays for a moment, what it sends is
  thrown away.
- On `HttpService.drain` what has begun is finished, then the connection closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import struct
from typing import TYPE_CHECKING, cast

from edgefleet_runtime.serve.hosts import misdirected
from edgefleet_runtime.serve.messages import (
    Limits,
    Pending,
    Prepared,
    Request,
    Response,
    overloaded,
    refusal,
)
from edgefleet_runtime.serve.outgoing import JOINED_BELOW, call_observer, write
from edgefleet_runtime.serve.reader import IDLE, Held, Phase, RequestReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.serve.access import Admit
    from edgefleet_runtime.serve.hosts import Knows

    Answer = Response | Prepared
    Handler = Callable[[Request], Answer | Pending[Answer] | asyncio.Future[Response]]
    """Answers a request at once or promises to; called on the event loop's thread."""

_log = logging.getLogger(__name__)

_SPARE_CONNECTIONS = 64  # beyond the limit, so that some of those too many are told why
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, for no time
_NUMBERS = itertools.count(1)  # of the connections of all servers
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpService:
    """What all connections of a server share. Made on its event loop.

    Args:
        handler: answers requests.
        limits: what is accepted.
        admit: may refuse a request by its head, before its body is taken in.
        local: whether only callers on this machine reach it; what they may do depends on that.
        knows: whether a name may be asked by; None for any. Over Unix sockets any may.
    """

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        admit: Admit | None = None,
        *,
        local: bool = False,
        knows: Knows | None = None,
    ) -> None:
        self.handler = handler
        self.admit = admit
        self._knows = knows
        self.local = local
        self.limits = limits
        self.draining = False
        self.held = Held()
        self.loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        timeouts = (
            limits.head_timeout_s,
            limits.body_timeout_s,
            limits.idle_timeout_s,
            limits.write_timeout_s,
            limits.linger_s,
        )
        # One timer for all connections: one a request would cost more than the parsing.
        self._tick_s = min(1.0, *(timeout / 4 for timeout in timeouts))
        self._timer = self.loop.call_later(self._tick_s, self._tick)

    def connection(self) -> Connection:
        """A protocol for one accepted connection."""
        return Connection(self, self._knows)

    def unix_connection(self) -> Connection:
        """The same for one over a Unix socket."""
        return Connection(self)

    def add(self, connection: Connection) -> int:
        """Take a connection in; tells by how many there are now too many."""
        self._connections.add(connection)
        self._empty.clear()
        return len(self._connections) - self.limits.max_connections

    def discard(self, connection: Connection) -> None:
        """Forget a connection that is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def drain(self, timeout_s: float) -> None:
        """Close what is idle, finish what has begun, cut what isn't done after ``timeout_s``."""
        self.draining = True
        for connection in tuple(self._connections):
            connection.close_if_idle()
        try:
            if self._connections:
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()
        except TimeoutError:
            _log.warning("cutting %d connections that are still busy", len(self._connections))
        self._timer.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    def _tick(self) -> None:
        now = self.loop.time()
        for connection in tuple(self._connections):
            connection.check(now)
        self._timer = self.loop.call_later(self._tick_s, self._tick)


class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, service: HttpService, knows: Knows | None = None) -> None:
        self._service = service
        self._knows = knows
        self._reader = RequestReader(service.limits, service.held, service.admit)
        self._number = next(_NUMBERS)
        self._transport: asyncio.Transport | None = None  # None once the connection is gone
        self._since = service.loop.time()  # when the reader's phase began
        self._changes = 0
        self._answering: Request | None = None
        self._awaited: Pending[Answer] | None = None  # the answer to it, if that takes longer
        self._stalled_since: float | None = None  # since when the client doesn't read
        self._reading = True
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        excess = self._service.add(self)
        if excess > _SPARE_CONNECTIONS:
            self.abort()
        elif excess > 0:
            self._refuse(overloaded("too many connections", self._service.limits))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._reader.drop()
        self._service.discard(self)
        if self._awaited is not None:
            self._awaited.withdraw()

    def data_received(self, data: bytes) -> None:
        reader = self._reader
        if self._answering is None and self._stalled_since is None and not self._closing:
            request = reader.whole(data)
            if request is not None:
                self._answer(request)
                return
        reader.feed(data)
        if reader.changes != self._changes:
            self._changes = reader.changes
            self._since = self._service.loop.time()
        # Behind other answers a go-ahead would be taken for theirs; a client then stops waiting.
        if reader.expects_continue and self._transport and not self._answering and not reader.ready:
            reader.expects_continue = False
            self._transport.write(_CONTINUE)
        self._advance()

    def eof_received(self) -> bool:
        """Keep the connection for the answer: a client may close its side and still read."""
        if self._answering is None or self._closing:
            return False
        last = self._reader.ready[-1] if self._reader.ready else self._answering
        last.keep_alive = False
        return True

    def pause_writing(self) -> None:
        self._stalled_since = self._service.loop.time()

    def resume_writing(self) -> None:
        self._stalled_since = None
        self._advance()

    def check(self, now: float) -> None:
        """Drop the client if it has been too slow; called from time to time."""
        limits = self._service.limits
        phase, age = self._reader.phase, now - self._since
        if self._stalled_since is not None:
            if now - self._stalled_since > limits.write_timeout_s:
                self.abort()
        elif self._closing:
            if age > limits.linger_s:
                self.abort()
        elif self._answering is not None:
            return
        elif phase is Phase.HEAD and age > limits.head_timeout_s:
            self._refuse(refusal(408, f"no complete headers within {limits.head_timeout_s} s"))
        elif phase is Phase.BODY and age > limits.body_timeout_s:
            self._refuse(refusal(408, f"no complete body within {limits.body_timeout_s} s"))
        elif phase is Phase.IDLE and age > limits.idle_timeout_s:
            self._close()

    def close_if_idle(self) -> None:
        """Close the connection unless a request has begun on it."""
        if self._answering is None and self._reader.phase is Phase.IDLE:
            self._close()

    def abort(self) -> None:
        """Cut the connection; what isn't written is lost."""
        if self._transport is None:
            return
        # Closed in order, it would stay in the kernel with its unread megabytes for minutes, and
        # no longer count among the connections.
        if (sock := self._transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):  # it is gone already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _advance(self) -> None:
        """Answer what can be answered now, then read on or wait."""
        reader = self._reader
        while reader.ready and self._is_free():
            self._answer(reader.ready.popleft())
        if self._transport is None or self._closing:
            return
        if reader.phase is Phase.STOPPED and not reader.ready and self._is_free():
            if reader.refusal is None:
                self._close()
            else:
                self._refuse(reader.refusal)
            return
        reading = not reader.ready and self._stalled_since is None
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _is_free(self) -> bool:
        """Whether the next answer may be given now."""
        return self._answering is None and self._stalled_since is None and not self._closing

    def _answer(self, request: Request) -> None:
        self._answering = request
        # A browser's word (Fetch standard, 3.2): the page that asks may be anybody's in the world.
        request.local = self._service.local and b"origin" not in request.headers
        request.origin = self._number
        host = request.headers.get(b"host", b"")
        try:
            if self._knows is None or self._knows(host):
                outcome = self._service.handler(request)
            else:
                outcome = misdirected(host)
        except Exception:  # noqa: BLE001 - one request's failure is not its connection's
            _log.exception("a request handler failed")
            outcome = refusal(500, "internal error")
        if isinstance(outcome, Pending):
            outcome.deliver = self._delivered
            self._awaited = outcome
        elif isinstance(outcome, (Prepared, Response)):
            self._finish(outcome)
        else:
            outcome.add_done_callback(self._answered)

    def _delivered(self, response: Answer) -> None:
        self._awaited = None
        self._finish(response)
        reader = self._reader
        if reader.phase is not IDLE or reader.ready or not self._reading:
            self._advance()

    def _answered(self, future: asyncio.Future[Response]) -> None:
        if future.cancelled():
            response = refusal(503, "the server is stopping")
        elif (error := future.exception()) is not None:
            _log.error("a request handler failed", exc_info=error)
            response = refusal(500, "internal error")
        else:
            response = future.result()
        self._finish(response)
        self._advance()

    def _finish(self, response: Answer) -> None:
        request, transport, service = self._answering, self._transport, self._service
        if request is None:  # answered already
            return
        self._answering = None
        service.held.bytes -= len(request.body)
        if isinstance(response, Prepared):
            usual = request.keep_alive and not request.http10
            if usual and transport is not None and not service.draining:
                head, data = response.template.wire, response.data
                if len(data) < JOINED_BELOW:
                    transport.write(head + data)
                else:
                    transport.writelines((head, data))
                self._since = service.loop.time()
            else:
                self._finish_other(request, response.response())
        else:
            self._finish_other(request, response)
        if response.after is not None:
            call_observer(response.after)

    def _finish_other(self, request: Request, response: Response) -> None:
        if self._transport is not None:
            last = self._service.draining and not self._reader.ready
            keep_alive = request.keep_alive and not response.close and not last
            head = response.head(keep_alive=keep_alive, http10=request.http10)
            write(self._transport, head, () if request.method == "HEAD" else response.body)
            self._since = self._service.loop.time()
            if not keep_alive:
                self._close()

    def _refuse(self, response: Response) -> None:
        """Say why, read no further, and leave the client a moment to take it."""
        transport = cast("asyncio.Transport", self._transport)
        write(transport, response.head(keep_alive=False), response.body)
        self._reader.drop()
        self._closing = True
        self._since = self._service.loop.time()
        # Closing with unread bytes makes the kernel reset the connection, and the answer is lost.
        if not self._reading:
            self._reading = True
            transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def _close(self) -> None:
        self._closing = True
        self._since = self._service.loop.time()
        if self._transport is not None:
            self._transport.close()
