"""Requests to one host over HTTPS: connections are kept, TLS sessions are resumed.

Rules kept here:

- No redirect is followed: what is shown to this host is for it alone.
- An answer is cut off at a limit of bytes and of time; a connection that has failed isn't kept.
- A kept connection that turns out to be gone is replaced once: every request here may be repeated.
- Proxies are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``), unless one is named.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
import time
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from edgefleet.errors import (
    ConfigurationError,
    EdgeFleetError,
    LimitExceededError,
    UnavailableError,
)
from edgefleet_runtime import __version__
from edgefleet_runtime.channels.pull.failures import failure_of
from edgefleet_runtime.store.trust import system_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message

TIMEOUT_S = 30.0  # without a byte; cellular links pause for many seconds at a cell change
# After which a kept connection isn't trusted, because networks forget silent ones. Above the usual
# pause between two polls: a poll costs a tenth of a handshake.
IDLE_S = 75.0
LONGEST_S = 300.0  # for all of an answer that is kept in memory
MAX_IDLE = 4
MAX_ANSWER_BYTES = 1 << 20
NO_PROXY = "none"
_GONE = (
    http.client.RemoteDisconnected,
    ConnectionError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)


class Answered(NamedTuple):
    """An answer, whole."""

    status: int
    headers: Message
    body: bytes


class Proxy(NamedTuple):
    """A proxy that connections go through.

    Attributes:
        host: its name.
        port: its port.
        headers: that it wants to be shown; they are shown to it alone.
    """

    host: str
    port: int
    headers: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Proxy(host={self.host!r}, port={self.port})"

    @classmethod
    def of(cls, url: str) -> Proxy:
        """A proxy as ``HTTPS_PROXY`` writes it.

        Raises:
            ConfigurationError: it is none; nothing of it, which may be a secret, is repeated.
        """
        with suppress(ValueError):
            parts = urlsplit(url if "://" in url else f"http://{url}")
            if parts.scheme == "http" and parts.hostname:
                headers = {}
                if parts.username is not None:
                    known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                    encoded = base64.b64encode(known.encode()).decode()
                    headers["Proxy-Authorization"] = f"Basic {encoded}"
                return cls(parts.hostname, parts.port or 80, headers)
        raise ConfigurationError(
            "the proxy has no address of a kind that is known here",
            cure="write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT",
        )


class Connection(http.client.HTTPSConnection):
    """A connection that resumes a TLS session, and is opened only when it is told to."""

    auto_open = 0

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        timeout_s: float,
        proxy: Proxy | None,
        session: ssl.SSLSession | None,
    ) -> None:
        near = (host, port) if proxy is None else (proxy.host, proxy.port)
        super().__init__(*near, context=context, timeout=timeout_s)
        self.idle_since = 0.0
        self.where = f"{host}:{port}"
        self.tls = context
        self._name, self._session = host, session
        if proxy is not None:
            # Python before 3.12 sends no Host by itself.
            self.set_tunnel(host, port, {"Host": f"{host}:{port}", **proxy.headers})

    def connect(self) -> None:
        """Connect, through the proxy where there is one, and shake hands."""
        said: list[http.client.HTTPResponse] = []

        def heard(sock: socket.socket, method: str | None = None) -> http.client.HTTPResponse:
            said.append(http.client.HTTPResponse(sock, method=method))
            return said[-1]

        # Python before 3.11.4 leaves the answer of a proxy open, and with it the socket.
        self.response_class = heard  # type: ignore[assignment]
        try:
            http.client.HTTPConnection.connect(self)
        finally:
            self.response_class = http.client.HTTPResponse
            for answer in said:
                answer.close()
        # wrap_socket closes what it was given when it fails.
        self.sock = self.tls.wrap_socket(
            self.sock, server_hostname=self._name, session=self._session
        )

    def exchanged(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Send a request and get the answer's beginning."""
        try:
            self.request(method, path, body, dict(headers))
        except (ConnectionError, ssl.SSLEOFError) as error:
            # Whoever ends a connection while it is sent to may have said why before.
            try:
                return self.getresponse()
            except ssl.SSLEOFError:
                raise error from None
            except ssl.SSLError:
                raise
            except (OSError, http.client.HTTPException):
                raise error from None
        return self.getresponse()

    @property
    def session(self) -> ssl.SSLSession | None:
        """To resume; None before the handshake."""
        return self.sock.session if isinstance(self.sock, ssl.SSLSocket) else None

    def certificate(self) -> dict[str, object]:
        """The other side's certificate, as `ssl.SSLSocket.getpeercert` gives it."""
        found = self.sock.getpeercert() if isinstance(self.sock, ssl.SSLSocket) else None
        return dict(found or {})

    def abort(self) -> None:
        """Have whoever waits for this connection see its end; any thread may call it."""
        if self.sock is not None:
            with suppress(OSError):
                # The base's, so that the TLS object stays whole for the thread that reads.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class Https:
    """One host.

    Args:
        address: ``https://HOST[:PORT]``; a path after it isn't looked at.
        context: gives TLS settings; when it gives others, no connection made with the former is
            used again.
        proxy: address of a proxy, ``none`` for none; None for the environment's.
        greet: looks at each new connection before anything is sent over it, or raises.
        timeout_s: longest wait for the next byte.
        clock: monotonic seconds.
        now: seconds since 1970, by this device's clock.

    Raises:
        ConfigurationError: the proxy is none.
    """

    def __init__(
        self,
        address: str,
        *,
        context: Callable[[], ssl.SSLContext],
        proxy: str | None = None,
        greet: Callable[[Connection], None] = lambda _: None,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(address)
        self._host, self._port = parts.hostname or "", parts.port or 443
        self.where = parts.netloc
        self._context, self._greet = context, greet
        self._timeout_s, self._clock, self._now = timeout_s, clock, now
        self._proxy = proxy
        if proxy is not None and proxy != NO_PROXY:
            Proxy.of(proxy)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._session: ssl.SSLSession | None = None
        self._closed = False

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answered:
        """Send a request and take the whole answer, whatever its status.

        Args:
            method: of the request.
            path: with the query, encoded.
            body: to send.
            headers: to send.
            wait_s: how much longer the answer may take, because it was asked to.
            max_bytes: most that the answer's body may have.

        Raises:
            UnavailableError: no answer, or a broken one.
            AccessDeniedError: this device's certificate isn't believed.
            LimitExceededError: the answer is longer than that.
        """
        with self.begin(method, path, body=body, headers=headers, wait_s=wait_s) as exchange:
            return Answered(exchange.status, exchange.headers, exchange.whole(max_bytes))

    def begin(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
    ) -> Exchange:
        """The same, while the answer's body is still to be read.

        Raises:
            EdgeFleetError: as `ask`.
        """
        sent = {"User-Agent": f"edgefleet-runtime/{__version__}", **(headers or {})}
        while True:
            connection, kept = self._take()
            try:
                connection.sock.settimeout(self._timeout_s + wait_s)
                return Exchange(self, connection, connection.exchanged(method, path, body, sent))
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.drop(connection)
                if not (kept and isinstance(error, _GONE)):
                    raise self.failure(error) from error

    def elsewhere(self, address: str) -> Https:
        """Another host, by the same proxy: believed by the system's authorities, shown nothing."""
        return Https(
            address,
            context=system_context,
            proxy=self._proxy,
            timeout_s=self._timeout_s,
            clock=self._clock,
            now=self._now,
        )

    def close(self) -> None:
        """End every connection, those in use as well."""
        with self._lock:
            self._closed = True
            self._forget(self._idle)
            self._idle.clear()
            found = list(self._open)
        for connection in found:
            connection.abort()

    # ---------------------------------------------------------------------------- connections

    def _take(self) -> tuple[Connection, bool]:
        """A connection, and whether it was used before."""
        with self._lock:
            self._check_open()
            context = self._context()
            if context is not self._tls:
                self._tls, self._session = context, None
                self._forget(self._idle)
                self._idle.clear()
            while self._idle:
                connection = self._idle.pop()
                if self._clock() - connection.idle_since <= IDLE_S:
                    return connection, True
                self._forget([connection])
            session = self._session
        return self._connect(context, session), False

    def _connect(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> Connection:
        proxy = self._through()
        connection = Connection(
            self._host,
            self._port,
            context,
            timeout_s=self._timeout_s,
            proxy=proxy,
            session=session,
        )
        with self._lock:
            self._open.add(connection)
        try:
            connection.connect()
            with self._lock:  # what closed meanwhile found no socket here to abort
                self._check_open()
            self._greet(connection)
        except EdgeFleetError:
            self.drop(connection)
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.drop(connection)
            raise self._failure(error, proxy) from error
        except BaseException:
            self.drop(connection)
            raise
        return connection

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(f"{self.where}: the channel is closed")

    def _through(self) -> Proxy | None:
        """The proxy to go through now; the environment's may be another than at the start."""
        if self._proxy is not None:
            return None if self._proxy == NO_PROXY else Proxy.of(self._proxy)
        if urllib.request.proxy_bypass(f"{self._host}:{self._port}"):
            return None
        found = urllib.request.getproxies()
        url = found.get("https") or found.get("all")
        return Proxy.of(url) if url else None

    def _keep(self, connection: Connection, *, whole: bool) -> None:
        """Use a connection again, if its answer was read to the end and it stays open."""
        with self._lock:
            if whole and connection.sock is not None and connection.tls is self._tls:
                self._session = connection.session
                if not self._closed and len(self._idle) < MAX_IDLE:
                    connection.idle_since = self._clock()
                    self._idle.append(connection)
                    return
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection, and don't use it again."""
        with self._lock:
            self._forget([connection])

    def _forget(self, connections: list[Connection]) -> None:
        for connection in connections:
            self._open.discard(connection)
            connection.close()

    # -------------------------------------------------------------------------------- answers

    def done(self, connection: Connection, reply: http.client.HTTPResponse) -> None:
        """Keep or close the connection of an answer that nobody reads any more."""
        if reply.length == 0:
            reply.read()  # read1 doesn't close what it has read to the end
        self._keep(connection, whole=reply.isclosed() and not reply.will_close)

    def failure(self, error: OSError | http.client.HTTPException | ValueError) -> EdgeFleetError:
        """What a failure of a connection means."""
        return self._failure(error, self._through())

    def _failure(
        self, error: OSError | http.client.HTTPException | ValueError, proxy: Proxy | None
    ) -> EdgeFleetError:
        return failure_of(error, self.where, proxy=proxy and proxy.host, now=self._now)

    def late(self, since: float) -> bool:
        """Whether an answer that is kept in memory takes too long."""
        return self._clock() > since + LONGEST_S

    def since(self) -> float:
        """The moment, for `late`."""
        return self._clock()


class Exchange:
    """An answer whose body is still to be read; made by `Https.begin`.

    Attributes:
        status: of the answer.
        headers: of it.
    """

    def __init__(
        self, host: Https, connection: Connection, reply: http.client.HTTPResponse
    ) -> None:
        self.status, self.headers = reply.status, reply.headers
        self._host, self._connection, self._reply = host, connection, reply
        self._broken = self._closed = False

    def read(self, max_bytes: int) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            UnavailableError: the connection broke off.
        """
        try:
            data = self._reply.read1(max_bytes)
            if not data and self._reply.length:  # read1, unlike read, doesn't complain itself
                raise http.client.IncompleteRead(b"", self._reply.length)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._broken = True
            raise self._host.failure(error) from error
        return data

    def whole(self, max_bytes: int) -> bytes:
        """All of it.

        Raises:
            UnavailableError: it broke off, or takes too long.
            LimitExceededError: it is longer.
        """
        since, parts, size = self._host.since(), list[bytes](), 0
        while data := self.read(min(64 << 10, max_bytes + 1)):
            parts.append(data)
            size += len(data)
            if size > max_bytes:
                raise LimitExceededError(f"{self._host.where} answers more than {max_bytes} bytes")
            if self._host.late(since):
                raise UnavailableError(f"{self._host.where} takes too long to answer")
        return b"".join(parts)

    def close(self) -> None:
        """Let go of the connection."""
        if self._closed:
            return
        self._closed = True
        if self._broken:
            self._host.drop(self._connection)
        else:
            self._host.done(self._connection, self._reply)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
