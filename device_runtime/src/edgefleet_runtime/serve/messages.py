"""What an HTTP handler gets and gives, and the limits that stand before it."""

from __future__ import annotations

import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar

import msgspec

from edgefleet.errors import InvalidInputError, LimitExceededError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MIB = 1 << 20
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
A = TypeVar("A")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one server accepts before it refuses.

    Attributes:
        max_head_bytes: request line and headers of one request.
        max_body_bytes: body of one request, also after decompression.
        max_held_bytes: bodies of all requests together that have arrived and aren't answered.
        max_connections: open at a time; further ones get 503 and are closed.
        max_requests: inference requests that wait for one model; further ones get 503.
        head_timeout_s: from a request's first byte to the end of its headers.
        body_timeout_s: from there to the end of its body.
        idle_timeout_s: without a request on a connection.
        write_timeout_s: while a client doesn't take its answer.
        linger_s: for a refused client to read why.
        retry_after_s: what answers with 503 tell their clients.
    """

    max_head_bytes: int = 32 * 1024
    max_body_bytes: int = 64 * MIB
    max_held_bytes: PositiveInt = 256 * MIB
    max_connections: int = 512
    max_requests: Annotated[int, msgspec.Meta(ge=0)] = 64
    head_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    idle_timeout_s: float = 120.0
    write_timeout_s: float = 30.0
    linger_s: float = 2.0
    retry_after_s: int = 1


class Request:
    """One request, complete.

    Attributes:
        method: in capitals.
        target: path and query as they came.
        headers: by lower-case name; repeated ones are joined by ``, ``.
        body: decoded from chunks, still compressed if it came so.
        keep_alive: whether the client lets the connection stand.
        http10: whether it speaks HTTP/1.0, which must be told so.
        head: what is remembered of its head (`edgefleet_runtime.serve.heads.Head`), if anything;
            requests with the same head share ``headers``, which nobody may change.
        local: whether the caller is on this machine, as the connection that gives it on says; no
            web page is, whichever machine shows it.
        origin: number of that connection.
    """

    __slots__ = (
        *("body", "head", "headers", "http10", "keep_alive", "local", "method"),
        *("origin", "target"),
    )

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: dict[bytes, bytes] | None = None,
        body: bytes = b"",
        *,
        keep_alive: bool = True,
        http10: bool = False,
        head: Any = None,  # noqa: ANN401 - its module imports this one
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers or {}
        self.body = body
        self.keep_alive = keep_alive
        self.http10 = http10
        self.head = head
        self.local = False
        self.origin: int | None = None


class Response:
    """An answer.

    Attributes:
        status: HTTP's.
        body: its parts; large ones are written as they are.
        content_type: MIME type; empty for none.
        headers: further ones.
        close: whether the connection ends with it.
        after: called once the answer has been handed to the connection.
    """

    __slots__ = ("after", "body", "close", "content_type", "headers", "status")

    def __init__(
        self,
        status: int = 200,
        body: tuple[bytes | memoryview, ...] = (),
        *,
        content_type: str = "application/json",
        headers: tuple[tuple[str, str], ...] = (),
        close: bool = False,
        after: Callable[[], None] | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.close = close
        self.after = after

    def head(self, *, keep_alive: bool, http10: bool = False) -> bytes:
        """Status line and headers.

        There is no Date: many devices have no clock that can be trusted (RFC 9110, 6.6.1).
        """
        lines = [_STATUS_LINES[self.status]]
        if self.content_type and self.body:
            lines.append(f"Content-Type: {self.content_type}\r\n")
        lines.append(f"Content-Length: {sum(map(len, self.body))}\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        if not keep_alive:
            lines.append("Connection: close\r\n")
        elif http10:
            lines.append("Connection: keep-alive\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1", "replace")


_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}


class Prepared:
    """An answer of status 200 whose head was written before.

    Attributes:
        template: what is the same in many answers.
        data: what follows it, the last part of the body.
        after: as of `Response`.
    """

    __slots__ = ("after", "data", "template")

    def __init__(
        self,
        template: Template,
        data: bytes | memoryview,
        after: Callable[[], None] | None = None,
    ) -> None:
        self.template = template
        self.data = data
        self.after = after

    def response(self) -> Response:
        """The same in full, for connections that need another head."""
        like = self.template.like
        return Response(
            body=(*like.body, self.data),
            content_type=like.content_type,
            headers=like.headers,
            after=self.after,
        )


class Template:
    """The bytes of an answer up to the data that differs.

    Args:
        like: an answer without that data.
        data_bytes: how long the data is.
    """

    __slots__ = ("like", "wire")

    def __init__(self, like: Response, data_bytes: int) -> None:
        self.like = like
        whole = Response(
            body=(*like.body, bytes(data_bytes)),
            content_type=like.content_type,
            headers=like.headers,
        )
        self.wire = b"".join((whole.head(keep_alive=True), *like.body))


class Pending(Generic[A]):
    """An answer that will be there later, cheaper than a future.

    Attributes:
        deliver: set by whoever waits; called with the answer once, on the event loop's thread and
            never before the handler has returned.
    """

    __slots__ = ("deliver",)

    deliver: Callable[[A], None]

    def withdraw(self) -> None:
        """Nobody wants the answer any more; a refusal is delivered unless the work has begun."""


def json_response(
    status: int, content: object, *, headers: tuple[tuple[str, str], ...] = (), close: bool = False
) -> Response:
    """An answer with this content as JSON."""
    return Response(status, (msgspec.json.encode(content),), headers=headers, close=close)


def refusal(
    status: int, message: str, *, headers: tuple[tuple[str, str], ...] = (), close: bool = False
) -> Response:
    """An answer that says what went wrong, as Open Inference Protocol v2 has it."""
    # A message may quote what a client sent: nothing that isn't Unicode text may stop the answer.
    text = message.encode(errors="replace").decode()
    return json_response(status, {"error": text}, headers=headers, close=close)


def overloaded(reason: str, limits: Limits, *, close: bool = False) -> Response:
    """An answer that asks the client to come back later."""
    headers = (("Retry-After", str(limits.retry_after_s)),)
    return refusal(503, reason, headers=headers, close=close)


def decompressed(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """The body that ``Content-Encoding`` hides.

    Args:
        body: as it arrived.
        encoding: ``gzip``, ``deflate``, ``identity``.
        max_bytes: refuse as soon as more would come out.

    Raises:
        UnsupportedError: another encoding, or several of them.
        LimitExceededError: more than ``max_bytes`` would come out.
        InvalidInputError: it isn't such data, or it is cut short.
    """
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return body
    if name in {"gzip", "x-gzip"}:
        window = 16 + zlib.MAX_WBITS
    elif name == "deflate":
        # RFC 9110, 8.4.1.2: the zlib format; some clients send the bare deflate stream
        window = zlib.MAX_WBITS if _is_zlib(body) else -zlib.MAX_WBITS
    else:
        msg = f"Content-Encoding {encoding[:100]!r} is not known here"
        raise UnsupportedError(msg, cure="use gzip, deflate or none")
    inflater = zlib.decompressobj(window)
    try:
        plain = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        msg = f"the body is no {name} data: {error}"
        raise InvalidInputError(msg) from error
    if len(plain) > max_bytes:
        msg = f"the body is over the limit of {max_bytes} bytes once decompressed"
        raise LimitExceededError(msg)
    if not inflater.eof or inflater.unused_data:
        msg = f"the {name} data of the body is cut short or has something behind it"
        raise InvalidInputError(msg)
    return plain


def _is_zlib(body: bytes) -> bool:
    """Whether it starts as RFC 1950 says: method 8 in the first byte, two bytes divisible by 31."""
    return len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0
