"""A client of one Open Inference Protocol v2 server: health, metadata, inference, model control.

Rules kept here:

- Connections are kept open for the next call, of any thread, until `close`; a call that finds its
  own dropped opens another, once.
- Answers are read up to a limit and checked: the server may be anybody's.
- Errors are ours: `UnavailableError` when nobody answers, else `InferenceError` with the server's
  own words.
"""

from __future__ import annotations

import http.client
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from edgefleet.errors import ConfigurationError, EdgeFleetError, InferenceError, UnavailableError
from edgefleet.protocol.inference import (
    HEADER_LENGTH,
    InferResponse,
    decode_response,
    read_header_length,
)
from edgefleet.protocol.typed import UNREADABLE, convert, decoder

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BYTES = 256 << 20  # of one answer
CALL_S = 30.0

_T = TypeVar("_T")


class ServerInfo(msgspec.Struct, frozen=True):
    """What a server says of itself."""

    name: str = ""
    version: str = ""
    extensions: tuple[str, ...] = ()


class TensorInfo(msgspec.Struct, frozen=True):
    """A tensor of a model's metadata."""

    name: str
    datatype: str
    shape: tuple[int, ...] = ()


class ModelInfo(msgspec.Struct, frozen=True):
    """A model's metadata; ``properties`` are this runtime's own addition."""

    name: str
    platform: str = ""
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    properties: dict[str, str] = {}


class _Said(msgspec.Struct, frozen=True):
    error: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the server did what was asked."""
        return 200 <= self.status < 300

    @property
    def said(self) -> str:
        """The server's own words, or its status."""
        try:
            text = decoder(_Said).decode(self.body).error
        except UNREADABLE:
            text = self.body[:200].decode(errors="replace")
        return " ".join(text.split())[:500] or f"status {self.status}"


class OipClient:
    """Talks to the server at ``http://HOST:PORT``; safe to call from several threads.

    Raises:
        ConfigurationError: not such an address.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError:
            parts, port = urlsplit(""), 0
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
            msg = f"not the address of an inference server: {url[:200]!r}"
            raise ConfigurationError(msg, cure="write http://HOST:PORT")
        self.url = url.rstrip("/")
        self._host, self._port = parts.hostname, port
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Close what isn't in use, and from now on every connection after its call."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def server(self) -> ServerInfo:
        """What the server says of itself.

        Raises:
            UnavailableError: nobody answers.
            InferenceError: what answers is no such server.
        """
        return self._read("/v2", ServerInfo)

    def ready(self, model: str) -> bool:
        """Whether a model answers requests."""
        return self.call("GET", f"/v2/models/{quote(model, safe='')}/ready").ok

    def model(self, name: str) -> ModelInfo:
        """A model's metadata.

        Raises:
            InferenceError: the server has no such model, or says nothing of use.
        """
        return self._read(f"/v2/models/{quote(name, safe='')}", ModelInfo)

    def infer(self, name: str, body: bytes, headers: Mapping[str, str]) -> InferResponse:
        """Run a model with an encoded request.

        Raises:
            InferenceError: the server refused, failed, or answered nonsense.
        """
        answer = self.call("POST", f"/v2/models/{quote(name, safe='')}/infer", body, headers)
        if not answer.ok:
            msg = f"{self.url}: {answer.said}"
            raise InferenceError(msg, retryable=answer.status in {429, 503})
        try:
            length = read_header_length(answer.headers.get(HEADER_LENGTH.lower()))
            return decode_response(answer.body, length)
        except EdgeFleetError as error:
            msg = f"{self.url} answered with what can't be read: {error.message}"
            raise InferenceError(msg) from error

    def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = CALL_S,
    ) -> Answer:
        """One request, and another when a kept connection turns out to be closed.

        Raises:
            UnavailableError: nobody answers in time.
            InferenceError: the answer is over the limit.
        """
        for again in (True, False):
            kept, connection = self._take(timeout_s)
            try:
                connection.request(method, path, body or None, dict(headers or {}))
                with connection.getresponse() as response:
                    data = response.read(MAX_BYTES + 1)
                    lowered = {name.lower(): value for name, value in response.getheaders()}
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                # Only what a server closed while it was idle is sent twice.
                if kept and again and isinstance(error, ConnectionError):
                    continue
                msg = f"{self.url} doesn't answer: {str(error) or type(error).__name__}"
                raise UnavailableError(msg, cure="start the inference server") from error
            if len(data) > MAX_BYTES:
                connection.close()
                msg = f"{self.url} answered with more than {MAX_BYTES} bytes"
                raise InferenceError(msg)
            self._give(connection)
            return Answer(response.status, lowered, data)
        raise AssertionError  # the second try returns or raises

    def _read(self, path: str, kind: type[_T]) -> _T:
        answer = self.call("GET", path)
        if not answer.ok:
            msg = f"{self.url}{path}: {answer.said}"
            raise InferenceError(msg)
        try:
            return convert(decoder(Any).decode(answer.body), kind, strict=False)
        except UNREADABLE as error:
            msg = f"{self.url}{path} is not what Open Inference Protocol v2 says: {error}"
            raise InferenceError(msg) from error

    def _take(self, timeout_s: float) -> tuple[bool, http.client.HTTPConnection]:
        """A connection for one call, and whether it was used before."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            return False, http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        return True, connection

    def _give(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if not self._closed and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()
