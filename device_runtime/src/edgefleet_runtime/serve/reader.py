"""Turns the bytes of one connection into requests. Does no IO and has no clock; httptools parses.

Rules kept here:

- What is kept of an unfinished request is capped: head, body, and all connections' bodies together;
  so is what frames a body (chunk extensions, trailers), and tiny chunks cost what they hold.
- Trailers are read over: nothing here is defined to come in one (RFC 9110, 6.5.1).
- What is left of a large body whose length is known doesn't pass the parser, which would copy it.
- Any bytes at all give requests or one refusal, after which nothing further is read.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, NoReturn

import httptools

from edgefleet_runtime.serve.heads import Heads
from edgefleet_runtime.serve.messages import Limits, Request, Response, overloaded, refusal

if TYPE_CHECKING:
    from edgefleet_runtime.serve.access import Admit

_SMALL = 4096  # bytes; smaller pieces of a body are kept together: an object each costs too much
_LARGE = 1 << 16  # bytes left of a body: fewer aren't worth a parser of their own
_MAX_PIPELINED = 1024  # requests of one connection; a read may hold 14,000, at 15 times their bytes


class Phase(enum.Enum):
    """Where in a request the bytes have come to."""

    IDLE = enum.auto()  # between requests
    HEAD = enum.auto()  # inside the request line and headers
    BODY = enum.auto()
    STOPPED = enum.auto()  # refused, or the last request has come; further bytes are thrown away


IDLE = Phase.IDLE  # an attribute of an enumeration takes longer to find than a request's head


class Held:
    """What the readers of a server share.

    Attributes:
        bytes: how many bytes of unanswered bodies it holds, all connections together.
        heads: the heads that have come before.
    """

    __slots__ = ("bytes", "heads")

    def __init__(self) -> None:
        self.bytes = 0
        self.heads = Heads()


class RequestReader:
    """The receiving half of a connection.

    Args:
        limits: what is accepted.
        held: what the connections of a server hold together.
        admit: may refuse a request by its head, before its body is taken in.

    Attributes:
        phase: where the last bytes ended.
        changes: counts the changes of ``phase``, for whoever keeps time.
        ready: complete requests, the oldest first; whoever answers one takes its body off `Held`.
        refusal: what to answer, once all of ``ready`` is answered, to what couldn't be read.
        expects_continue: whether the client waits for a go-ahead before it sends the body.
    """

    def __init__(self, limits: Limits, held: Held, admit: Admit | None = None) -> None:
        self.phase = Phase.IDLE
        self.changes = 0
        self.ready: deque[Request] = deque()
        self.refusal: Response | None = None
        self.expects_continue = False
        self._limits = limits
        self._held = held
        self._admit = admit
        self._parser = httptools.HttpRequestParser(self)
        self._left = 0  # bytes of the body that the parser needn't see
        self._came_on = False  # whether the bytes being fed began a request or brought body
        self._head_bytes = 0
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes | bytearray] = []
        self._body_bytes = 0

    def whole(self, data: bytes) -> Request | None:
        """The request that ``data`` is, neither more nor less, if its head has come before.

        Without one nothing is taken in, and ``data`` is still to be fed. Where heads are looked at
        before they are let in, none is known.
        """
        if self.phase is not IDLE or self._admit is not None:
            return None
        held = self._held
        request = held.heads.request(data)
        if request is None or held.bytes + len(request.body) > self._limits.max_held_bytes:
            return None
        held.bytes += len(request.body)
        return request

    def feed(self, data: bytes) -> None:
        """Take in what arrived."""
        if self.phase is Phase.STOPPED:
            return
        rest = self._fill(data) if self._left else data
        if rest:
            self._parse(rest)
            left = self._length() - self._body_bytes if self.phase is Phase.BODY else 0
            self._left = left if left >= _LARGE else 0

    def drop(self) -> None:
        """Give up what hasn't been taken from here, because the connection is gone."""
        self._forget_body()
        self._held.bytes -= sum(len(request.body) for request in self.ready)
        self.ready.clear()
        self._stop()

    # -- called by the parser; an exception here ends `feed_data`

    def on_message_begin(self) -> None:
        self._came_on = True
        self._enter(Phase.HEAD)
        self._head_bytes = 0
        self._target = b""
        self._headers = {}

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self._limits.max_head_bytes:
            self._refuse(self._head_too_large())
        if self.phase is Phase.BODY:
            return  # a trailer
        key = name.lower()
        known = self._headers.get(key)
        self._headers[key] = value if known is None else known + b", " + value

    def on_headers_complete(self) -> None:
        self._enter(Phase.BODY)
        self._came_on = True
        self._head_bytes = 0
        headers = self._headers
        if self._admit is not None:
            refused = self._admit(self._parser.get_method(), self._target, headers)
            if refused is not None:
                self._refuse(refused)
        if len(self._target) > self._limits.max_head_bytes:
            self._refuse(refusal(414, "the request's path is too long"))
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            self._refuse(refusal(501, "of transfer codings only chunked is known here"))
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._limits.max_body_bytes:
            self._refuse(self._body_too_large())
        expected = headers.get(b"expect")
        if expected is not None:
            if expected.lower() != b"100-continue":
                self._refuse(refusal(417, "of expectations only 100-continue is known here"))
            self.expects_continue = True

    def on_body(self, body: bytes) -> None:
        self._came_on = True
        self._head_bytes = 0
        self._keep(body)
        if self._body_bytes > self._limits.max_body_bytes:
            self._refuse(self._body_too_large())
        if self._held.bytes > self._limits.max_held_bytes:
            self._refuse(self._holds_too_much())

    def on_message_complete(self) -> None:
        if len(self.ready) >= _MAX_PIPELINED:
            self._refuse(overloaded("too many requests wait on this connection", self._limits))
        self._complete()

    # --

    def _parse(self, data: bytes) -> None:
        head_bytes = self._head_bytes + len(data)
        ready = len(self.ready)
        starts = self.phase is Phase.IDLE
        if starts:
            self._enter(Phase.HEAD)
        self._came_on = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The request asks to go on in another protocol. It is answered in this one, as RFC 9110
            # (7.8) allows, and what follows it is not looked at.
            if self.ready:
                self.ready[-1].keep_alive = False
            self._stop()
        except httptools.HttpParserError as error:
            self._stop(refusal(400, f"malformed HTTP: {error}"))
        if starts and self.phase is Phase.IDLE and len(self.ready) == ready + 1 and not self._admit:
            self._held.heads.learn(data, self.ready[-1])
        if self.phase in {Phase.HEAD, Phase.BODY}:
            # The parser keeps an incomplete header or trailer, so what was fed counts, not what it
            # gave.
            self._head_bytes = 0 if self._came_on else head_bytes
            if self._head_bytes > self._limits.max_head_bytes:
                self._stop(self._head_too_large())

    def _fill(self, data: bytes) -> bytes:
        """Take in what the parser needn't see of a body; gives what comes behind it."""
        size = self._left
        piece = data if len(data) <= size else data[:size]
        self._left = size - len(piece)
        self._keep(piece)
        if self._held.bytes > self._limits.max_held_bytes:
            self._left = 0
            self._stop(self._holds_too_much())
            return b""
        if not self._left:
            self._complete()
            self._parser = httptools.HttpRequestParser(self)  # the other one waits for the body
        return data[size:]

    def _length(self) -> int:
        """Of the body, where that is known and nothing but the request's end comes behind it."""
        headers = self._headers
        if b"transfer-encoding" in headers or b"upgrade" in headers:
            return 0
        length = headers.get(b"content-length", b"")
        # Where as many wait as may, the parser has to tell the end of this one.
        return int(length) if length.isdigit() and len(self.ready) < _MAX_PIPELINED else 0

    def _keep(self, body: bytes) -> None:
        parts = self._body
        if len(body) >= _SMALL:
            parts.append(body)
        elif parts and isinstance(parts[-1], bytearray):
            parts[-1] += body
        else:
            parts.append(bytearray(body) if parts else body)
        self._body_bytes += len(body)
        self._held.bytes += len(body)

    def _complete(self) -> None:
        parser = self._parser
        body = bytes(self._body[0]) if len(self._body) == 1 else b"".join(self._body)
        self.ready.append(
            Request(
                parser.get_method().decode("latin-1"),
                self._target,
                self._headers,
                body,
                keep_alive=parser.should_keep_alive(),
                http10=parser.get_http_version() == "1.0",
            )
        )
        self._body = []
        self._body_bytes = 0
        self.expects_continue = False
        self._enter(Phase.IDLE)

    def _enter(self, phase: Phase) -> None:
        self.phase = phase
        self.changes += 1

    def _refuse(self, response: Response) -> NoReturn:
        self._stop(response)
        raise ValueError  # ends the parsing; httptools wraps it, `feed` has the refusal already

    def _stop(self, response: Response | None = None) -> None:
        self.refusal = self.refusal or response
        self._forget_body()
        if self.phase is not Phase.STOPPED:
            self._enter(Phase.STOPPED)

    def _forget_body(self) -> None:
        self._held.bytes -= self._body_bytes
        self._body_bytes = 0
        self._body = []

    def _head_too_large(self) -> Response:
        return refusal(
            431, f"the headers are over the limit of {self._limits.max_head_bytes} bytes"
        )

    def _holds_too_much(self) -> Response:
        return overloaded("too many bytes of requests are held", self._limits)

    def _body_too_large(self) -> Response:
        return refusal(413, f"the body is over the limit of {self._limits.max_body_bytes} bytes")
