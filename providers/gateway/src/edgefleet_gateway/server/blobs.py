"""Blobs of the fleet by digest, with ranges; from the registry, or from where it says they lie.

A blob is streamed: no more than two stretches of it are in memory. What a device may read is what
lies below the fleet's own prefix of the registry, and an address is a digest, never a path.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from starlette.responses import RedirectResponse, Response

from edgefleet.errors import NotFoundError
from edgefleet.protocol.digest import blob_path
from edgefleet_gateway.server.problems import RefusedError
from edgefleet_gateway.server.wire import CONNECTION

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from edgefleet_gateway.server.gateway import Gateway
    from edgefleet_gateway.server.wire import Connection

STRETCH_BYTES = 256 << 10
SIZES = 10_000  # blobs whose size is remembered
_HEX = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")
_LOG = logging.getLogger(__name__)
_IMMUTABLE = "private, max-age=31536000, immutable"


class Stretch(NamedTuple):
    """Bytes of a blob that were asked for: from ``start``, ``length`` of them."""

    start: int
    length: int


async def blob(gateway: Gateway, request: Request) -> Response:
    """A blob of the registry, or where it lies."""
    digest = digest_in(request)
    if gateway.settings.redirects:
        target = f"{gateway.settings.redirects[0]}/{blob_path(digest)}"
        return RedirectResponse(target, status_code=307, headers={"Cache-Control": "no-store"})
    return await stream(gateway, request, digest)


async def archive(gateway: Gateway, request: Request) -> Response:
    """An archive of a runtime that was ordered; no other blob, for anybody may read these."""
    digest = digest_in(request)
    if digest not in await gateway.mirror.archives():
        raise _missing()
    return await stream(gateway, request, digest)


async def stream(gateway: Gateway, request: Request, digest: str) -> Response:
    """A blob, whole or the range that was asked for."""
    size = await _size(gateway, digest)
    etag = f'"{digest}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag, "Cache-Control": _IMMUTABLE}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    asked = request.headers.get("range")
    if asked is not None and request.headers.get("if-range", etag) == etag:
        wanted = read_range(asked, size)
        if wanted is None:
            raise RefusedError(416, "no such range", headers={"Content-Range": f"bytes */{size}"})
        end = wanted.start + wanted.length - 1
        headers["Content-Range"] = f"bytes {wanted.start}-{end}/{size}"
        status = 206
    else:
        wanted, status = Stretch(0, size), 200
    headers["Content-Length"] = str(wanted.length)
    headers["Content-Type"] = "application/octet-stream"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if gateway.streams.locked():
        raise RefusedError(503, "too many downloads at once")
    await gateway.streams.acquire()
    try:
        opened = await gateway.thread(
            lambda: gateway.backends.blobs.open(digest, offset=wanted.start)
        )
    except BaseException as error:
        gateway.streams.release()
        if isinstance(error, NotFoundError):  # it was there when its size was asked for
            gateway.sizes.pop(digest, None)
            raise _missing() from error
        raise
    return _Streamed(gateway, opened, wanted.length, status, headers)


class _Streamed(Response):
    """A stretch of a blob, sent as fast as the client reads it.

    Not starlette's own: that one ends without a word to what it streams when the client is gone
    before the first byte, and its place would be taken for ever.
    """

    def __init__(
        self,
        gateway: Gateway,
        opened: BinaryIO,
        length: int,
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._gateway, self._opened, self._length = gateway, opened, length
        self._reading: asyncio.Future[bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            start = {"type": "http.response.start", "status": self.status_code}
            await send(start | {"headers": self.raw_headers})
            await self._send(scope[CONNECTION], send)
        finally:
            self._gateway.streams.release()
            if self._reading is None or self._reading.done():
                self._opened.close()
            else:  # cancelled while a thread reads: closed when that is through
                self._reading.add_done_callback(lambda _: self._opened.close())

    async def _send(self, connection: Connection, send: Send) -> None:
        left = self._length
        while left > 0 and not connection.gone:
            wanted = min(STRETCH_BYTES, left)
            self._reading = asyncio.ensure_future(
                self._gateway.thread(lambda count=wanted: self._opened.read(count))  # type: ignore[misc]
            )
            try:
                data = await asyncio.shield(self._reading)
            except Exception as error:  # noqa: BLE001 - whatever a store's stream raises
                _LOG.warning("a blob breaks off: %s: %s", type(error).__name__, error)
                data = b""
            if not data:  # less than was announced: the connection ends, and the device resumes
                connection.transport.abort()
                return
            left -= len(data)
            self._gateway.figures.sent_bytes.inc(len(data))
            await send({"type": "http.response.body", "body": data, "more_body": left > 0})
        if not self._length:
            await send({"type": "http.response.body", "body": b""})


async def _size(gateway: Gateway, digest: str) -> int:
    """A blob's size, asked for once: thousands of devices fetch the same, and none ever changes."""
    size = gateway.sizes.get(digest)
    if size is None:
        size = await gateway.thread(lambda: gateway.backends.blobs.size(digest))
        if size is None:
            raise _missing()
        if len(gateway.sizes) >= SIZES:
            gateway.sizes.clear()
        gateway.sizes[digest] = size
    return size


def read_range(field: str, size: int) -> Stretch | None:
    """What a ``Range`` asks of a blob of ``size`` bytes; None for what can't be given.

    One range only: whoever asks for several gets the first problem that they can act on.
    """
    found = _RANGE.fullmatch(field.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        length = min(int(found[2]), size)
        return Stretch(size - length, length) if length else None
    start = int(found[1])
    end = min(int(found[2]), size - 1) if found[2] else size - 1
    return Stretch(start, end - start + 1) if start <= end else None


def digest_in(request: Request) -> str:
    """The digest that an address names."""
    found: str = request.path_params["hex"]
    if not _HEX.fullmatch(found):
        raise _missing()
    return f"sha256:{found}"


def _missing() -> RefusedError:
    return RefusedError(404, "this fleet has no such blob")
