"""Blobs from a gateway or a web server, and from where these send a device for them.

A redirect is followed without the device's certificate, by HTTPS alone, by the channel's proxy, and
against the system's authorities: what comes is a blob that its digest proves, whoever gives it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit, urlunsplit

from edgefleet.errors import IntegrityError, UnavailableError
from edgefleet.protocol.digest import blob_path, short
from edgefleet.protocol.gateway import PROBLEM_TYPE
from edgefleet_runtime.channels.pull.answers import refused
from edgefleet_runtime.channels.pull.failures import ELSE, SIGN_IN
from edgefleet_runtime.channels.pull.https import Answered
from edgefleet_runtime.store.http import refusal_of
from edgefleet_runtime.store.sources import BlobStream, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.errors import EdgeFleetError
    from edgefleet_runtime.channels.pull.https import Exchange, Https

MAX_REFUSAL_BYTES = 64 << 10
MAX_REDIRECTS = 4
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
        path, what = f"{self._below}/{self._place(digest)}", f"blob {short(digest)}"
        host, found = self._host, _opened(self._host, path, offset, what)
        if isinstance(found, BlobStream):
            return found
        for _ in range(MAX_REDIRECTS):
            host, path = _elsewhere(host, path, found, what)
            try:
                found = _opened(host, path, offset, what, then=host.close)
            except BaseException:
                host.close()
                raise
            if isinstance(found, BlobStream):
                return found
            host.close()
        raise UnavailableError(f"{self._host.where}, {what}: too many redirects")


def _opened(
    host: Https, path: str, offset: int, what: str, *, then: Callable[[], None] | None = None
) -> BlobStream | str:
    """The bytes from an offset on, or the address that a host sends this device to.

    Args:
        host: asked.
        path: there, with the query.
        offset: in bytes.
        what: for errors; neither path nor query are in them, which may be secrets.
        then: of a host that a redirect led to: called when its stream is closed.
    """
    where = f"{host.where}, {what}"
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    exchange = host.begin("GET", path, headers=headers)
    try:
        if exchange.status in {200, 206}:
            return _Stream(exchange, offset if exchange.status == 206 else 0, where, then)
        beyond = exchange.status == 416 and offset
        if not beyond and exchange.status not in _REDIRECTS:
            raise _refusal(exchange, where, own=then is None)  # noqa: TRY301 - let go of below
    except BaseException:
        exchange.close()
        raise
    exchange.close()
    if beyond:  # nothing lies there: let the store see it whole
        return _opened(host, path, 0, what, then=then)
    return exchange.headers.get("Location", "")


def _elsewhere(before: Https, path: str, location: str, what: str) -> tuple[Https, str]:
    """Who is to be asked by a redirect, and for which path.

    Args:
        before: who answered with it.
        path: that was asked for there; ``location`` may be relative to it (RFC 9110, 10.2.2).
        location: where it leads.
        what: for errors.
    """
    with suppress(ValueError):
        parts = urlsplit(urljoin(f"https://{before.where}{path}", location) if location else "")
        plain = location.isascii() and location.isprintable() and " " not in location
        if plain and parts.scheme == "https" and parts.hostname and "@" not in parts.netloc:
            host = before.elsewhere(f"https://{parts.netloc}")
            return host, urlunsplit(("", "", parts.path or "/", parts.query, ""))
    raise UnavailableError(
        f"{before.where}, {what}: it sends this device to no address that is followed: {ELSE}",
        cure=SIGN_IN,
    )


def _refusal(exchange: Exchange, where: str, *, own: bool) -> EdgeFleetError:
    """A gateway's words, or what a plain web server's status means."""
    if not own or exchange.headers.get_content_type() != PROBLEM_TYPE:
        return refusal_of(exchange.status, exchange.headers, where)
    body = exchange.whole(MAX_REFUSAL_BYTES)
    return refused(Answered(exchange.status, exchange.headers, body), where)


class _Stream(BlobStream):
    def __init__(
        self, exchange: Exchange, start: int, where: str, then: Callable[[], None] | None
    ) -> None:
        said = _CONTENT_RANGE.match(exchange.headers.get("Content-Range", ""))
        if start and said is not None and int(said[1]) != start:
            raise IntegrityError(f"{where}: asked from byte {start}, answered from {said[1]}")
        self.start = start
        self._exchange, self._then = exchange, then

    def read(self, max_bytes: int) -> bytes:
        return self._exchange.read(max_bytes)

    def close(self) -> None:
        self._exchange.close()
        if self._then is not None:
            self._then()
