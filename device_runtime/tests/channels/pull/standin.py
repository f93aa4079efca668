"""A gateway in a thread, over real TLS sockets: honest, unless a test tells it what to do next."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import trustme

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.gateway import (
    ANSWERS,
    ARCHIVES,
    AUTHORITIES,
    BLOBS,
    COMPLETE_HEADER,
    DIGEST_HEADER,
    ENROLL,
    EVENTS,
    FILES,
    LENGTH_HEADER,
    OFFER_HEADER,
    OFFSET_HEADER,
    POINTER,
    PROBLEM_TYPE,
    RENEW,
    REPORT,
    REQUESTS,
    RUNTIME,
    WAITING_HEADER,
    Identity,
    Problem,
    Requests,
    RuntimeOffer,
    WaitingRequest,
    read_digest_field,
)
from edgefleet_runtime.channels.pull.clock import NO_CHECK_TIME

FLEET = "11111111-2222-4333-8444-555555555555"
DEVICE = "cam-07"
PORTAL = b"<html><body>Welcome to Harbour WiFi, please sign in</body></html>"


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class StandIn(ThreadingHTTPServer):
    """What a gateway holds, and what it does to those who ask.

    Attributes:
        script: what becomes of the next requests, one word each: a status, ``503;7`` with
            Retry-After, ``problem:403:revoked``, ``html``, ``redirect:URL``, ``drop`` (no answer),
            ``half`` (half of an answer), ``deaf:N`` (N bytes of the body are read, then nothing),
            ``mute`` (all is done, and not answered), ``lie`` (other bytes), ``short`` (of a part of
            a file, half is taken); empty for honesty.
        only: what the script is for: a method and the beginning of a path.
        asked: every request so far.
        date: the gateway's clock; None for the true one.
        cached: whether answers come from a cache between.
        away: whether nobody is answered, those who wait neither: connections end without a word.
        news: notified when somebody who waits should be answered.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, authority: trustme.CA, host: str = "localhost", **issue: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.authority = authority
        self.script: list[str] = []
        self.only: tuple[str, str] = ("", "")
        self.asked: list[Asked] = []
        self.date: datetime | None = None
        self.cached = self.away = False
        self.news = threading.Condition()
        self.pointer: bytes | None = None
        self.patience_s = 90.0
        self.blobs: dict[str, bytes] = {}
        self.reports: list[bytes] = []
        self.events: list[dict[str, Any]] = []
        self.partial: dict[str, bytearray] = {}
        self.files: dict[str, bytes] = {}
        self.kept = 0
        self.offer: tuple[str, RuntimeOffer] | None = None
        self.waiting: list[WaitingRequest] = []
        self.answers: dict[str, bytes] = {}
        self.renew: Callable[[bytes], Identity] | None = None
        self.enroll: Callable[[bytes], Identity | Problem] | None = None
        self.handshakes = self.resumed = 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(host, **issue).configure_cert(self.context)
        authority.configure_trust(self.context)
        self.context.verify_mode = ssl.CERT_OPTIONAL
        self.context.verify_flags |= NO_CHECK_TIME

    @property
    def address(self) -> str:
        return f"https://localhost:{self.server_port}"

    def put(self, data: bytes) -> str:
        digest = digest_of(data)
        self.blobs[digest] = data
        return digest

    def point(self, pointer: bytes | None) -> None:
        with self.news:
            self.pointer = pointer
            self.news.notify_all()

    def leave(self) -> None:
        """Be away from now on."""
        with self.news:
            self.away = True
            self.news.notify_all()

    def paths(self, method: str = "") -> list[str]:
        return [one.path for one in self.asked if one.method.startswith(method)]

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a handshake must keep nobody waiting.
        try:
            with self.context.wrap_socket(request, server_side=True) as secured:
                self.handshakes += 1
                self.resumed += bool(secured.session_reused)
                super().finish_request(secured, client_address)
        except OSError:
            pass  # the client went, or trusts somebody else

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of a server's errors."""


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    step = ""

    def date_time_string(self, timestamp: float | None = None) -> str:
        date = self.server.date
        if date is None:
            return super().date_time_string(timestamp)
        return format_datetime(date.astimezone(UTC), usegmt=True)

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def _any(self) -> None:
        server = self.server
        method, path = server.only
        self.step = ""
        if server.script and self.command.startswith(method) and self.path.startswith(path):
            self.step = server.script.pop(0)
        length = int(self.headers.get("Content-Length") or 0)
        if self.step.startswith("deaf:"):
            length = min(length, int(self.step.removeprefix("deaf:")))
        body = self.rfile.read(length)
        server.asked.append(Asked(self.command, self.path, dict(self.headers.items()), body))
        if self.step == "drop" or server.away:
            self.close_connection = True
            return
        if self._scripted():
            return
        for begin, answer in (
            (POINTER, self._pointer),
            (AUTHORITIES, self._authorities),
            (f"{BLOBS}/", self._blob),
            (f"{ARCHIVES}/", self._blob),
            (RUNTIME, self._runtime),
            (REPORT, self._report),
            (EVENTS, self._events),
            (f"{FILES}/", self._file),
            (REQUESTS, self._requests),
            (f"{ANSWERS}/", self._answer),
            (RENEW, self._renew),
            (ENROLL, self._enroll),
        ):
            if self.path.startswith(begin):
                answer(body)
                return
        self._send(404, b"")

    do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = _any  # noqa: N815 - the base's names

    def _scripted(self) -> bool:
        word, _, rest = self.step.partition(":")
        status, _, after = word.partition(";")
        if status.isdigit():
            self._send(int(status), b"", {"Retry-After": after} if after else {})
        elif word == "html":
            self._send(200, PORTAL, {"Content-Type": "text/html"})
        elif word == "redirect":
            self._send(302, b"", {"Location": rest})
        elif word == "problem":
            code, _, name = rest.partition(":")
            said = encode(Problem(title=name or "refused", status=int(code), code=name))
            self._send(int(code), said, {"Content-Type": PROBLEM_TYPE})
        else:
            return False
        return True

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if self.step == "mute" or self.server.away:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        if self.server.cached:
            self.send_header("Age", "259200")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.step == "half":
            body = body[: len(body) // 2]
            self.close_connection = True
        if self.step == "lie":
            body = b"?" * len(body)
        self.wfile.write(body)

    # ------------------------------------------------------------------------------ what it serves

    def _pointer(self, _body: bytes) -> None:
        server, held = self.server, self.headers.get("If-None-Match")
        with server.news:
            if "Prefer" in self.headers:
                server.news.wait_for(
                    lambda: self._etag() != held or server.waiting or server.away,
                    server.patience_s,
                )
            pointer, etag = server.pointer, self._etag()
            headers = {WAITING_HEADER: str(len(server.waiting))}
            if server.offer is not None:
                headers[OFFER_HEADER] = server.offer[0]
        if pointer is None or etag is None:
            self._send(204, b"", headers)
        elif held == etag:
            self._send(304, b"", {**headers, "ETag": etag})
        else:
            self._send(200, pointer, {**headers, "ETag": etag})

    def _etag(self) -> str | None:
        pointer = self.server.pointer
        return None if pointer is None else f'"{digest_of(pointer)[7:23]}"'

    def _authorities(self, _body: bytes) -> None:
        self._send(200, self.server.authority.cert_pem.bytes(), {"Content-Type": "text/plain"})

    def _blob(self, _body: bytes) -> None:
        data = self.server.blobs.get("sha256:" + self.path.rpartition("/")[2])
        if data is None:
            self._send(404, b"")
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start >= len(data) > 0:
            self._send(416, b"")
            return
        said = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        self._send(206 if asked else 200, data[start:], said)

    def _runtime(self, _body: bytes) -> None:
        offer = self.server.offer
        self._send(204, b"") if offer is None else self._send(200, encode(offer[1]))

    def _report(self, body: bytes) -> None:
        self.server.reports.append(body)
        self._send(204, b"")

    def _events(self, body: bytes) -> None:
        self.server.events += json.loads(body)
        self._send(204, b"")

    def _file(self, body: bytes) -> None:
        server = self.server
        name, size = self.path.removeprefix(f"{FILES}/"), int(self.headers[LENGTH_HEADER])
        key = f"{name} {self.headers[DIGEST_HEADER]}"
        part = server.partial.get(key, bytearray())
        if self.command == "HEAD":
            whole = name in server.files
            if not whole and key not in server.partial:
                self._send(404, b"")
                return
            offset = len(server.files[name]) if whole else len(part)
            said = {OFFSET_HEADER: str(offset), COMPLETE_HEADER: "?1" if whole else "?0"}
            self._send(204, b"", said)
            return
        if int(self.headers[OFFSET_HEADER]) != len(part):
            self._send(409, b"", {OFFSET_HEADER: str(len(part))})
            return
        if self.step == "short":
            body = body[: len(body) // 2]
        part += body
        server.partial[key] = part
        if self.step.startswith("deaf:"):
            self.close_connection = True
            return
        done = self.headers[COMPLETE_HEADER] == "?1" and self.step != "short"
        if done:
            assert len(part) == size
            assert digest_of(bytes(part)) == read_digest_field(self.headers[DIGEST_HEADER])
            server.files[name] = bytes(server.partial.pop(key))
            server.kept += 1
        self._send(204, b"", {OFFSET_HEADER: str(len(part)), COMPLETE_HEADER: f"?{done:d}"})

    def _requests(self, _body: bytes) -> None:
        self._send(200, encode(Requests(waiting=tuple(self.server.waiting))))

    def _answer(self, body: bytes) -> None:
        name = self.path.rpartition("/")[2]
        with self.server.news:
            self.server.waiting = [one for one in self.server.waiting if one.id != name]
            self.server.answers[name] = body
            self.server.news.notify_all()
        self._send(204, b"")

    def _enroll(self, body: bytes) -> None:
        assert self.server.enroll is not None
        found = self.server.enroll(body)
        if isinstance(found, Problem):
            self._send(found.status, encode(found), {"Content-Type": PROBLEM_TYPE})
        else:
            self._send(200, encode(found))

    def _renew(self, body: bytes) -> None:
        if self.server.renew is None:
            self.step = "problem:403:expired"
            self._scripted()
            return
        self._send(200, encode(self.server.renew(body)))


class Enrolled:
    """Credentials of a device: what `identity` keeps on a disk, here in memory."""

    def __init__(self, authority: trustme.CA, *gateways: str) -> None:
        self.authority = authority
        self.identity = Identity(
            device=DEVICE,
            group="line-3",
            fleet=FLEET,
            certificate="-----BEGIN CERTIFICATE-----",
            authorities=authority.cert_pem.bytes().decode(),
            gateways=gateways,
        )
        self.due = False
        self.renewals = 0
        self._context = self._made()

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.authority.configure_trust(context)
        self.authority.issue_cert(f"{DEVICE}.example").configure_cert(context)
        return context

    def context(self) -> ssl.SSLContext:
        return self._context

    def renewal_due(self, now_s: float) -> bool:
        return self.due

    def renewal(self) -> bytes:
        return b'{"request":"the next"}'

    def renewed(self, answer: bytes) -> None:
        self.renewals += 1
        self.due = False
        self._context = self._made()

    def sign(self, data: bytes) -> bytes:
        return b"signed:" + digest_of(data).encode()


@contextmanager
def serving(server: StandIn) -> Iterator[StandIn]:
    """A gateway that is up."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.patience_s = 0.0
        with server.news:
            server.news.notify_all()
        server.shutdown()
        server.server_close()
        thread.join()
