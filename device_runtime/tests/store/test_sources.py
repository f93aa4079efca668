from __future__ import annotations

import http.client
import threading
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
    UnsupportedError,
)
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet_runtime.store.addresses import sources_for
from edgefleet_runtime.store.folder import FolderSource
from edgefleet_runtime.store.http import HttpSource, cause_of
from edgefleet_runtime.store.sources import Source

DATA = b"0123456789" * 10
DIGEST = digest_of(DATA)


class Server(ThreadingHTTPServer):
    """Serves one blob, ranges included; ``status`` makes it refuse, ``cut`` breaks off early."""

    daemon_threads = True
    status = 200
    cut = False
    ranges = True
    location = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, str]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/fleet"


class Handler(BaseHTTPRequestHandler):
    server: Server
    wbufsize = -1

    def do_GET(self) -> None:
        self.server.seen.append({name.lower(): value for name, value in self.headers.items()})
        if self.server.status != 200:
            self.send_response(self.server.status)
            self.send_header("Retry-After", "3")
            self.send_header("Location", self.server.location)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        asked = self.headers.get("Range")
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if self.path != f"/fleet/{blob_path(DIGEST)}":
            self.send_error(404)
            return
        if start >= len(DATA):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        self.wfile.write(DATA[start : start + 5] if self.server.cut else DATA[start:])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def read(source: Source, offset: int = 0, digest: str = DIGEST) -> tuple[int, bytes]:
    with source.open(digest, offset) as stream:
        data = b""
        while chunk := stream.read(7):
            data += chunk
        return stream.start, data


def test_http_gives_a_blob_whole_and_from_an_offset(server: Server) -> None:
    source = HttpSource(server.address)
    assert read(source) == (0, DATA)
    assert read(source, 30) == (30, DATA[30:])


def test_http_without_ranges_begins_at_the_start(server: Server) -> None:
    server.ranges = False
    assert read(HttpSource(server.address), 30) == (0, DATA)


def test_http_beyond_the_end_begins_at_the_start(server: Server) -> None:
    assert read(HttpSource(server.address), 1000) == (0, DATA)


def test_a_reply_that_breaks_off_is_unavailable_not_the_end(server: Server) -> None:
    server.cut = True
    with pytest.raises(UnavailableError):
        read(HttpSource(server.address))


@pytest.mark.parametrize(
    "status,error,retryable",
    [
        (404, NotFoundError, False),
        (410, NotFoundError, False),
        (401, AccessExpiredError, True),
        (403, AccessDeniedError, False),
        (429, ThrottledError, True),
        (503, ThrottledError, True),
        (500, UnavailableError, True),
        (400, UnavailableError, False),
    ],
)
def test_refusals_mean_what_their_status_says(
    server: Server, status: int, error: type[Exception], *, retryable: bool
) -> None:
    server.status = status
    with pytest.raises(error) as caught:
        read(HttpSource(server.address))
    assert type(caught.value) is error
    assert caught.value.retryable is retryable  # type: ignore[attr-defined]


def test_a_busy_server_says_for_how_long(server: Server) -> None:
    server.status = 429
    with pytest.raises(ThrottledError) as caught:
        read(HttpSource(server.address))
    assert caught.value.retry_after_s == 3.0


def test_nobody_there_is_unavailable(server: Server) -> None:
    with pytest.raises(UnavailableError):
        read(HttpSource("http://127.0.0.1:1/fleet", timeout_s=5))


def test_access_is_sent_to_its_own_host_and_no_other(server: Server) -> None:
    with Server() as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        server.status = 302
        server.location = f"{other.address}/{blob_path(DIGEST)}"
        source = HttpSource(server.address, headers=lambda _url: {"Authorization": "Bearer secret"})
        assert read(source) == (0, DATA)
        other.shutdown()
        thread.join()
    assert server.seen[0]["authorization"] == "Bearer secret"
    assert "authorization" not in other.seen[0]


def test_a_redirect_to_another_scheme_is_refused(server: Server) -> None:
    server.status = 302
    server.location = "ftp://127.0.0.1/blob"
    with pytest.raises(UnavailableError, match="redirects away"):
        read(HttpSource(server.address))


def test_a_folder_gives_a_blob_whole_and_from_an_offset(tmp_path: Path) -> None:
    path = tmp_path / "a folder" / blob_path(DIGEST)
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    source = FolderSource((tmp_path / "a folder").as_uri())
    assert read(source) == (0, DATA)
    assert read(source, 30) == (30, DATA[30:])
    with pytest.raises(NotFoundError):
        read(source, digest=digest_of(b"other"))


def test_a_folder_that_is_not_mounted_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="not there"):
        read(FolderSource((tmp_path / "stick").as_uri()))


def test_a_folder_of_another_machine_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        FolderSource("file://server/share")


def test_a_channel_may_bring_its_own_sources() -> None:
    own = FolderSource("file:///own")
    found = sources_for(
        ["s3://bucket/fleet", "https://host/fleet"],
        lambda address: own if address.startswith("s3:") else None,
    )
    assert [source.address for source in found] == ["file:///own", "https://host/fleet"]


def test_sources_that_nobody_can_read_are_named_by_scheme() -> None:
    with pytest.raises(UnsupportedError, match="schemes: az, s3"):
        sources_for(["s3://bucket/fleet", "az://bucket/fleet"])


@pytest.mark.parametrize(
    "error, said",
    [
        (urllib.error.URLError(ConnectionRefusedError(111, "refused")), "[Errno 111] refused"),
        (urllib.error.URLError("no host given"), "no host given"),
        (urllib.error.URLError(TimeoutError()), "TimeoutError"),
        (TimeoutError(), "TimeoutError"),
        (http.client.RemoteDisconnected("hung up"), "hung up"),
    ],
)
def test_a_request_without_an_answer_always_says_why(
    error: OSError | http.client.HTTPException, said: str
) -> None:
    assert cause_of(error) == said
