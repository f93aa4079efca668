"""Request heads that have come before, so that what clients repeat byte for byte is parsed once.

A client sends the same request line and headers over and over; parsing them again costs more than
running a small model. Rules kept here:

- A head is learned only from a request that the library's parser took whole, and only when its end
  and the body behind it are beyond doubt; the same bytes then mean the same.
- What may be learned is capped, in bytes and number, whatever clients send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_runtime.serve.messages import Request

if TYPE_CHECKING:
    from typing import Any

MAX_HEADS = 256
MAX_HEAD_BYTES = 2048
_END = b"\r\n\r\n"
_NEVER = frozenset(
    {
        *(b"transfer-encoding", b"expect", b"upgrade", b"connection"),
        b"authorization",  # a secret; nothing keeps it
        b"traceparent",  # differs from request to request
    }
)


class Head:
    """A head that is known.

    Attributes:
        start: its bytes, with the empty line that ends it.
        body_bytes: length of the body behind it.
        memo: whatever the handler wants to find again when this head comes back.
    """

    __slots__ = ("body_bytes", "headers", "memo", "method", "start", "target")

    def __init__(
        self,
        start: bytes,
        method: str,
        target: bytes,
        headers: dict[bytes, bytes],
        body_bytes: int,
    ) -> None:
        self.start = start
        self.method = method
        self.target = target
        self.headers = headers
        self.body_bytes = body_bytes
        self.memo: Any = None


class Heads:
    """The heads that all connections of a server know; used on its event loop's thread alone."""

    __slots__ = ("_known", "_last")

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self._last: Head | None = None  # the one that came last: quicker than to look it up

    def __len__(self) -> int:
        return len(self._known)

    def request(self, data: bytes) -> Request | None:
        """The request that ``data`` is from its first to its last byte, if its head is known."""
        head = self._last
        if head is None or not data.startswith(head.start):
            end = data.find(_END, 0, MAX_HEAD_BYTES) + 4
            head = self._known.get(data[:end])
            if head is None:
                return None
            self._last = head
        end = len(head.start)
        if head.body_bytes != len(data) - end:
            return None
        request = Request(head.method, head.target, head.headers, data[end:])
        request.head = head
        return request

    def learn(self, data: bytes, request: Request) -> None:
        """Remember the head of a request that ``data`` is from its first to its last byte."""
        end = data.find(_END, 0, MAX_HEAD_BYTES) + 4
        start = data[:end]
        length = request.headers.get(b"content-length", b"0")
        if (
            end < 4
            or not request.keep_alive
            or request.http10
            or not _NEVER.isdisjoint(request.headers)
            or data[end:] != request.body
            or length != b"%d" % len(request.body)
            # The parser may take other line ends than these; where a head then ends is its secret.
            or start.count(b"\n") != start.count(b"\r\n")
            or not start[:1].isalpha()
        ):
            return
        if len(self._known) >= MAX_HEADS:
            self._known.clear()
        head = Head(start, request.method, request.target, request.headers, len(request.body))
        self._known[start] = head
        request.head = head
