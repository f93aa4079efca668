"""A client of one repository of an OCI registry, by the distribution specification 1.1.

Rules kept here:

- TLS is verified with the system's certificates; a registry on loopback is spoken to in plain HTTP.
- A redirect leads from HTTPS to HTTPS alone, and what authorizes stays with the registry. Where the
  other host refuses, the registry is asked once more: signed addresses end.
- A challenge is answered and the call repeated, once.
- Calls that may be done twice are repeated where another try may mend them, after waits that grow;
  ``Retry-After`` is honoured up to a minute. A chunk is not: see `oci_upload`.
"""

from __future__ import annotations

import logging
import ssl
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

import httpx2

from edgefleet.errors import AccessDeniedError, AccessExpiredError, UnavailableError
from edgefleet.interfaces.retrying import PASSING
from edgefleet.protocol.bundle import INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from edgefleet.protocol.retry_after import retry_after_s
from edgefleet_kubernetes.oci_access import LOG_IN, Access
from edgefleet_kubernetes.oci_errors import RegistryRefusal
from edgefleet_kubernetes.oci_pages import in_pages
from edgefleet_kubernetes.retries import PAUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from edgefleet.protocol.oci import Credentials, Repository, TokenRequest

MAX_IDLE = 20  # connections that stay open between calls
MAX_REDIRECTS = 4
MAX_ANSWER_BYTES = 8 << 20  # of anything but a blob
MAX_REFUSAL_BYTES = 64 << 10
MANIFESTS = f"{INDEX_MEDIA_TYPE}, {MANIFEST_MEDIA_TYPE}"
_CROSSED = (401, 403)
_MOVED = frozenset({301, 302, 303, 307, 308})

_log = logging.getLogger(__name__)


class _WithoutQueries(logging.Filter):
    """Takes the query from the addresses that httpx2 logs: a store's signed one opens the store."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let each record go."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                one.copy_with(query=None) if isinstance(one, httpx2.URL) else one
                for one in record.args
            )
        return True


_WITHOUT_QUERIES = _WithoutQueries()


def connections(timeout_s: float, context: ssl.SSLContext | None = None) -> httpx2.Client:
    """Connections for `RegistryClient`: one takes the other's up again, whatever repository it is.

    As many as there are calls at once, so none waits for another; some stay open in between.

    Args:
        timeout_s: longest wait for a connection, or for the next byte.
        context: TLS settings; None for the system's certificates.
    """
    logging.getLogger("httpx2").addFilter(_WITHOUT_QUERIES)  # once, however often it is added
    return httpx2.Client(
        verify=context or ssl.create_default_context(),
        timeout=timeout_s,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=MAX_IDLE),
        headers={"User-Agent": "edgefleet", "Accept-Encoding": "identity"},
    )


class Answer(NamedTuple):
    """What a registry answered.

    Attributes:
        status: 200 to 299.
        headers: of it.
        data: its body.
    """

    status: int
    headers: httpx2.Headers
    data: bytes


class Manifest(NamedTuple):
    """A manifest as a registry gives it.

    Attributes:
        digest: that the registry tells; whoever reads it checks.
        media_type: of it.
        data: its bytes; empty where only its head was asked for.
        size: in bytes.
    """

    digest: str
    media_type: str
    data: bytes
    size: int


class _Call(NamedTuple):
    """What is sent; each try the same."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes | Iterable[bytes] | None

    @property
    def repeatable(self) -> bool:
        """Whether its content is still there after it was sent."""
        return isinstance(self.content, bytes | None)


class RegistryClient:
    """Speaks with a registry about one repository.

    Args:
        repository: the one.
        find: gives credentials when the registry asks for some.
        attempts: tries of each call, the first included.
        timeout_s: longest wait for a connection, or for the next byte.
        origin: where the registry's API answers, where that isn't what the address says.
        context: TLS settings; None for the system's certificates.
        http: what `connections` gives, shared with other clients and closed by whoever made it; its
            own limits count in place of ``timeout_s`` and ``context``. None for connections of
            its own.
        pause: waits for so many seconds.
    """

    def __init__(
        self,
        repository: Repository,
        find: Callable[[], Credentials | None],
        *,
        attempts: int,
        timeout_s: float,
        origin: str | None = None,
        context: ssl.SSLContext | None = None,
        http: httpx2.Client | None = None,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.repository = repository
        self.url = f"{origin or repository.origin}/v2/{repository.name}"
        self.access = Access(repository, find, self._ask_token)
        self._attempts, self._pause = attempts, pause
        self._shares = http is not None
        self._http = http or connections(timeout_s, context)

    def close(self) -> None:
        """Close connections, but those that are shared."""
        if not self._shares:
            self._http.close()

    def where(self, what: str) -> str:
        """Names something of the repository in errors."""
        return f"{self.repository.host}/{self.repository.name}, {what}"

    # Calls

    def call(
        self,
        method: str,
        url: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        again: bool = True,
    ) -> Answer:
        """The answer to a call, read whole.

        Args:
            method: of HTTP.
            url: absolute, or below the repository's.
            what: is asked for, in errors.
            headers: to send.
            content: to send; bytes where the call may be repeated.
            again: whether it may be repeated.

        Raises:
            RegistryRefusal: it isn't what was asked for.
            httpx2.HTTPError: there is none.
        """
        reply = self.open(method, url, what, headers=headers, content=content, again=again)
        try:
            data = b"".join(_at_most(reply.iter_raw(), MAX_ANSWER_BYTES))
        finally:
            reply.close()
        return Answer(reply.status_code, reply.headers, data)

    def open(
        self,
        method: str,
        url: str,
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] | None = None,
        again: bool = True,
    ) -> httpx2.Response:
        """The same, whose body is for the caller to read and to close."""
        where = f"{method} {self.where(what)}"
        call = _Call(method, urljoin(f"{self.url}/", url), headers or {}, content)
        for tries in range(1, self._attempts + 1):
            last = tries == self._attempts
            try:
                reply = self._authorized(call)
            except httpx2.TransportError:
                if last or not again:
                    raise
                self._pause(PAUSES.backoff_s(tries))
                continue
            if reply.status_code < 300:
                return reply
            refusal = RegistryRefusal(where, reply.status_code, reply.headers, _said(reply))
            asked = retry_after_s(refusal.headers.get("Retry-After"))
            undone = refusal.status == 429 or asked is not None
            mended = refusal.status in PASSING and (again or undone)
            if last or not mended or not call.repeatable or PAUSES.is_too_long(asked):
                raise refusal
            self._pause(PAUSES.next_s(tries, asked))
        raise AssertionError("a call is tried at least once")

    def _authorized(self, call: _Call) -> httpx2.Response:
        renewed = resolved = False
        while True:
            shown = self.access.shown
            reply, crossed = self._redirected(call)
            if crossed and reply.status_code in _CROSSED and call.repeatable and not resolved:
                resolved = True
                _said(reply)  # to its end, or its connection can't be used again
            elif reply.status_code == 401 and not crossed and call.repeatable:
                _said(reply)  # likewise
                if renewed:
                    raise self._refused(shown)
                renewed = True
                self.access.renew(", ".join(reply.headers.get_list("WWW-Authenticate")), shown)
            else:
                return reply

    def _refused(self, shown: str | None) -> AccessDeniedError:
        where = f"{self.repository.host}/{self.repository.name}"
        if (shown or "").startswith("Basic "):
            return AccessExpiredError(f"{where}: the credentials are not taken", cure=LOG_IN)
        return AccessDeniedError(
            f"{where}: a new token is refused, too",
            cure="let the credentials pull from and push to the repository",
        )

    def _redirected(self, call: _Call) -> tuple[httpx2.Response, bool]:
        """The answer after all redirects, and whether another host than the registry gave it."""
        home, url = _place(self.url), call.url
        for _ in range(MAX_REDIRECTS + 1):
            own = _place(url) == home
            shown = {"Authorization": self.access.shown} if own and self.access.shown else {}
            request = self._http.build_request(
                call.method, url, headers={**call.headers, **shown}, content=call.content
            )
            reply = self._http.send(request, stream=True)
            to = reply.headers.get("Location")
            followed = call.method in {"GET", "HEAD"} and reply.status_code in _MOVED
            if not followed or to is None:
                return reply, not own
            _said(reply)  # likewise
            moved = urljoin(url, to)
            if urlsplit(moved).scheme not in {"https", urlsplit(url).scheme}:
                raise UnavailableError(
                    f"{self.repository.host} redirects away from HTTPS", retryable=False
                )
            url = moved
        raise UnavailableError(f"{self.repository.host} redirects again and again", retryable=False)

    def _ask_token(self, request: TokenRequest) -> bytes:
        method = "GET" if request.body is None else "POST"
        place = urlsplit(request.url).netloc
        for tries in range(1, self._attempts + 1):
            asked = self._http.build_request(
                method, request.url, headers=request.headers, content=request.body
            )
            try:
                reply = self._http.send(asked)
            except httpx2.TransportError:
                if tries == self._attempts:
                    raise
                self._pause(PAUSES.backoff_s(tries))
                continue
            if reply.status_code == 200:
                return reply.content
            if reply.status_code in {400, 401, 403}:
                raise AccessExpiredError(
                    f"{place} gives no token for {self.repository}: HTTP {reply.status_code}",
                    cure=LOG_IN,
                )
            if tries == self._attempts or reply.status_code not in PASSING:
                raise RegistryRefusal(
                    f"a token from {place}", reply.status_code, reply.headers, reply.content
                )
            asked_s = retry_after_s(reply.headers.get("Retry-After"))
            self._pause(min(PAUSES.next_s(tries, asked_s), PAUSES.longest_told_s))
        raise AssertionError("a token is asked for at least once")

    # Manifests and tags

    def manifest(
        self, reference: str, *, head: bool = False, again: bool = True
    ) -> Manifest | None:
        """A manifest by tag or digest; None where there is none."""
        method = "HEAD" if head else "GET"
        try:
            reply = self.call(
                method,
                f"{self.url}/manifests/{reference}",
                f"manifest {reference}",
                headers={"Accept": MANIFESTS},
                again=again,
            )
        except RegistryRefusal as refusal:
            if refusal.status == 404:
                return None
            raise
        size = int(reply.headers.get("Content-Length", len(reply.data)))
        digest = reply.headers.get("Docker-Content-Digest", "")
        return Manifest(digest, reply.headers.get("Content-Type", ""), reply.data, size)

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> Answer:
        """Store a manifest under a tag or its digest; a tag that is there moves."""
        return self.call(
            "PUT",
            f"{self.url}/manifests/{reference}",
            f"manifest {reference}",
            headers={"Content-Type": media_type},
            content=data,
        )

    def delete(self, reference: str) -> bool:
        """Take a tag, or a manifest by its digest, away; whether the registry does such a thing.

        Deleting a tag that the registry knows no deletion of would take its manifest, and with it
        other tags: only tags themselves are asked for here.
        """
        try:
            self.call("DELETE", f"{self.url}/manifests/{reference}", f"manifest {reference}")
        except RegistryRefusal as refusal:
            if refusal.status not in {400, 404, 405}:
                raise
            return refusal.status == 404
        return True

    def tags(self) -> Iterator[str]:
        """All tags of the repository."""
        where = self.where("tags")
        try:
            yield from in_pages(
                self._page("tags"), f"{self.url}/tags/list", "tags", str, where=where
            )
        except RegistryRefusal as refusal:
            if refusal.status != 404:  # nothing was ever pushed
                raise

    def _page(self, what: str) -> Callable[[str], tuple[bytes, str]]:
        def ask(url: str) -> tuple[bytes, str]:
            answer = self.call("GET", url, what)
            return answer.data, answer.headers.get("Link", "")

        return ask

    def referrers(self, digest: str, artifact_type: str) -> list[dict[str, Any]] | None:
        """Descriptors of the manifests of one type whose subject is `digest`.

        Returns:
            None where the registry doesn't have the referrers API.
        """
        query = urlencode({"artifactType": artifact_type})
        what = f"referrers of {digest}"
        url = f"{self.url}/referrers/{digest}?{query}"
        try:
            found = [
                *in_pages(
                    self._page(what), url, "manifests", dict[str, Any], where=self.where(what)
                )
            ]
        except RegistryRefusal as refusal:
            if refusal.status in {400, 404, 405, 501}:
                return None
            raise
        return [one for one in found if one.get("artifactType") == artifact_type]


def _said(reply: httpx2.Response) -> bytes:
    """The body of a refusal, as far as it comes.

    distribution/distribution 2.8 gives its 416 the length of the blob.
    """
    said = bytearray()
    try:
        for piece in reply.iter_raw():
            said += piece
            if len(said) > MAX_REFUSAL_BYTES:
                break
    except httpx2.TransportError as error:
        _log.debug("a refusal broke off: %r", error)
    finally:
        reply.close()
    return bytes(said)


def _at_most(pieces: Iterator[bytes], left: int) -> Iterator[bytes]:
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise UnavailableError("the registry's answer doesn't end", retryable=False)
        yield piece


def _place(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
