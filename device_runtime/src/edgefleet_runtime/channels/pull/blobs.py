"""Blobs from a gateway or a web server, and from where these send a device for them.

A redirect is followed without the device's certificate, by HTTPS alone, and against the system's
authorities: what comes is a blob that its digest proves, whoever gives it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import IntegrityError, UnavailableError
from edgefleet.protocol.digest import blob_path, short
from edgefleet.protocol.gateway import PROBLEM_TYPE
from edgefleet_runtime.channels.pull.answers import refused
from edgefleet_runtime.channels.pull.https import Answered
from edgefleet_runtime.store.http import HttpSource, refusal_of
from edgefleet_runtime.store.sources import BlobStream, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.errors import EdgeFleetError
    from edgefleet_runtime.channels.pull.https import Exchange, Https

MAX_REFUSAL_BYTES = 64 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE = re.compile(r"\Abytes (\d{1,18})-")  # RFC 9110, 14.4


class PulledSource(Source):
    """What lies below an address of a host that the channel asks.

    Args:
        host: its connections.
        address: that the pointer or the channel gives, such as ``https://HOST:PORT/v1``.
        place: where a digest's bytes lie below it.
    """

    def __init__(
        self, host: Https, address: str, *, place: Callable[[str], str] = blob_path
    ) -> None:
        self.address = address
        self._place = place
        self._host = host
        self._below = urlsplit(address).path.rstrip("/")

    def open(self, digest: str, offset: int) -> BlobStream:
        host = self._host
        where = f"{host.where}, blob {short(digest)}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        path = f"{self._below}/{self._place(digest)}"
        exchange = host.begin("GET", path, headers=headers)
        try:
            if exchange.status in {200, 206}:
                return _Stream(exchange, offset if exchange.status == 206 else 0, where)
            location = exchange.headers.get("Location", "")
            beyond = exchange.status == 416 and offset
            if not beyond and exchange.status not in _REDIRECTS:
                raise _refusal(exchange, where)  # noqa: TRY301 - the connection is let go of below
        except BaseException:
            exchange.close()
            raise
        exchange.close()
        if beyond:  # nothing lies there: let the store see it whole
            return self.open(digest, 0)
        return _redirected(location, digest, offset, where)


def _refusal(exchange: Exchange, where: str) -> EdgeFleetError:
    """A gateway's words, or what a plain web server's status means."""
    if exchange.headers.get_content_type() != PROBLEM_TYPE:
        return refusal_of(exchange.status, exchange.headers, where)
    body = exchange.whole(MAX_REFUSAL_BYTES)
    return refused(Answered(exchange.status, exchange.headers, body), where)


class _Stream(BlobStream):
    def __init__(self, exchange: Exchange, start: int, where: str) -> None:
        said = _CONTENT_RANGE.match(exchange.headers.get("Content-Range", ""))
        if start and said is not None and int(said[1]) != start:
            raise IntegrityError(f"{where}: asked from byte {start}, answered from {said[1]}")
        self.start = start
        self._exchange = exchange

    def read(self, max_bytes: int) -> bytes:
        return self._exchange.read(max_bytes)

    def close(self) -> None:
        self._exchange.close()


class _Elsewhere(HttpSource):
    """One blob at an address of its own."""

    def open_at(self, url: str, offset: int, where: str) -> BlobStream:
        """Begin to read it."""
        return self._get(url, offset, where)


def _redirected(location: str, digest: str, offset: int, where: str) -> BlobStream:
    parts = urlsplit(location)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise UnavailableError(f"{where}: it sends this device to no address", retryable=False)
    return _Elsewhere(location).open_at(location, offset, f"{parts.netloc}, blob {short(digest)}")
