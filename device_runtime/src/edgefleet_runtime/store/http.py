"""Blobs over HTTP and HTTPS with the standard library: ranges, verified TLS, proxies, redirects.

Rules kept here: headers of access go to the host they were given for and to no other; a redirect
never leads from HTTPS to HTTP; no call waits longer than its timeout for the next byte.
Status codes: RFC 9110.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    EdgeFleetError,
    IntegrityError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import blob_path, short
from edgefleet.protocol.retry_after import retry_after_s
from edgefleet_runtime.store.sources import BlobStream, Source
from edgefleet_runtime.store.trust import Verified

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping
    from email.message import Message
    from typing import IO

TIMEOUT_S = 30.0  # without a byte; cellular links pause for many seconds at a cell change
_CONTENT_RANGE = re.compile(r"\Abytes (\d{1,18})-")  # RFC 9110, 14.4


class HttpSource(Source):
    """Blobs below an HTTP address.

    Args:
        address: such as ``https://host/fleet``.
        headers: called with the URL before each request for headers of access, such as a bearer
            token; they are sent to the address's own host only.
        query: called before each request for a query of access, such as a shared access signature;
            in no message of an error or a log.
        context: TLS settings; None verifies against the system's certificates, as they are when a
            connection begins.
        timeout_s: longest wait for the next byte.
        refusal: what a refusal means here; given the answer and what was asked for.
    """

    def __init__(
        self,
        address: str,
        *,
        headers: Callable[[str], Mapping[str, str]] = lambda _: {},
        query: Callable[[], str] = lambda: "",
        context: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        refusal: Callable[[urllib.error.HTTPError, str], EdgeFleetError] | None = None,
    ) -> None:
        self.address = address
        self._base = address.rstrip("/")
        self._headers = headers
        self._query = query
        self._timeout_s = timeout_s
        self._refusal = refusal or _refusal
        verified = Verified() if context is None else Verified(lambda: context)
        self._opener = urllib.request.build_opener(_CarefulRedirects(), verified)

    def open(self, digest: str, offset: int) -> BlobStream:
        url = f"{self._base}/{blob_path(digest)}"
        return self._get(url, offset, f"{urlsplit(url).netloc}, blob {short(digest)}")

    def _get(self, url: str, offset: int, where: str) -> BlobStream:
        """Begin to read what lies at a URL, at an offset in bytes; ``where`` names it in errors."""
        query = self._query()
        # The pointer's rules allow only http and https.
        request = urllib.request.Request(f"{url}?{query}" if query else url)  # noqa: S310
        request.add_header("Accept-Encoding", "identity")
        if offset:
            request.add_header("Range", f"bytes={offset}-")
        for name, value in self._headers(url).items():
            # "Unredirected": they go on to no other host, see `_CarefulRedirects`.
            request.add_unredirected_header(name, value)
        try:
            reply = self._opener.open(request, timeout=self._timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416 and offset:  # nothing lies beyond: let the store see it whole
                    return self._get(url, 0, where)
                raise self._refusal(error, where) from error
        except EdgeFleetError:
            raise
        except (OSError, http.client.HTTPException) as error:
            # A certificate that isn't valid yet is here too: a device without a battery has the
            # wrong time after a power cut, until the network corrects it.
            raise UnavailableError(f"{where}: {cause_of(error)}") from error
        start = 0
        if reply.status == 206:
            start = offset
            said = _CONTENT_RANGE.match(reply.headers.get("Content-Range", ""))
            if said is not None and int(said[1]) != offset:
                reply.close()
                raise IntegrityError(f"{where}: asked from byte {offset}, answered from {said[1]}")
        return _HttpStream(reply, start, where)


class _HttpStream(BlobStream):
    def __init__(self, reply: http.client.HTTPResponse, start: int, where: str) -> None:
        self.start = start
        self._reply = reply
        self._where = where

    def read(self, max_bytes: int) -> bytes:
        try:
            return self._reply.read1(max_bytes) or self._finish()
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{self._where}: broke off: {error!r}") from error

    def _finish(self) -> bytes:
        """Nothing, if the reply is as long as its header said."""
        if self._reply.length:  # read1, unlike read, doesn't complain itself
            raise http.client.IncompleteRead(b"", self._reply.length)
        return b""

    def close(self) -> None:
        self._reply.close()


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows none: what is written, and the token shown with it, is for one address alone."""

    def redirect_request(self, *_: object) -> None:
        """Leave a redirect to whoever asked, as a refusal."""


class _CarefulRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 4

    def redirect_request(  # noqa: PLR0917 - as the base class has it
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> urllib.request.Request | None:
        allowed = {"https"} if req.type == "https" else {"https", "http"}
        if urlsplit(newurl).scheme not in allowed:
            raise UnavailableError(f"{req.host} redirects away from {req.type}", retryable=False)
        found = super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]
        if found is not None and (found.type, found.host) == (req.type, req.host):
            found.unredirected_hdrs.update(req.unredirected_hdrs)
        return found


@cache
def put_opener() -> urllib.request.OpenerDirector:
    """Sends what is written; by the proxies that the environment names at the first call."""
    return urllib.request.build_opener(Verified())


def cause_of(error: OSError | http.client.HTTPException) -> str:
    """Why a request got no answer, in the words of whatever failed first."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(cause) or type(cause).__name__


def _refusal(error: urllib.error.HTTPError, where: str) -> EdgeFleetError:
    return refusal_of(error.code, error.headers, where)


def refusal_of(status: int, headers: Message, where: str) -> EdgeFleetError:
    """What a server's refusal means."""
    said = f"{where}: HTTP {status}"
    if status in (404, 410):
        return NotFoundError(said)
    if status == 401:
        return AccessExpiredError(said, cure="renew the device's access")
    if status == 403:
        return AccessDeniedError(said, cure="let the device read the fleet's blobs")
    if status in (429, 503):
        throttled = ThrottledError(said)
        throttled.retry_after_s = retry_after_s(headers.get("Retry-After"))
        return throttled
    return UnavailableError(said, retryable=status >= 500 or status == 408)
