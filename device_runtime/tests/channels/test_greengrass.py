"""What the Greengrass channel puts on the wire, and what it makes of what comes back."""

from __future__ import annotations

import errno
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    DocumentError,
    EdgeFleetError,
    InvalidInputError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.event import Alarm, Event, new_event, read_event
from edgefleet.protocol.report import MAX_BYTES, Health, Report
from edgefleet_runtime.channels.greengrass.channel import MAX_MESSAGE, shadow_update
from edgefleet_runtime.channels.greengrass.credentials import (
    ADDRESS_VARIABLE,
    EARLY_S,
    TOKEN_VARIABLE,
    TokenExchange,
)
from edgefleet_runtime.channels.greengrass.invoke import Invoker
from edgefleet_runtime.channels.greengrass.s3 import Bucket
from edgefleet_runtime.channels.greengrass.settings import Settings, read_settings
from edgefleet_runtime.channels.messages import packed
from edgefleet_runtime.channels.requests import WORKERS, Reply, Request, asker

SHADOW_BYTES = 8 << 10  # AWS IoT Core endpoints and quotas, Device Shadow
LABEL_BYTES = 512  # that operators' labels may take of it
NOW = datetime(2026, 11, 21, tzinfo=UTC)
TIMEOUT_S = 90.0


class Endpoint(ThreadingHTTPServer):
    """Answers everything with ``answer``: status, body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: tuple[int, bytes] = (200, b"")
        self.seen: list[tuple[str, dict[str, str]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint
    wbufsize = -1

    def do_GET(self) -> None:
        size = int(self.headers.get("Content-Length", 0))
        self.rfile.read(size)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((f"{self.command} {self.path}", headers))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def keys(until: str = "2099-01-01T00:00:00Z") -> bytes:
    return json.dumps(
        {"AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t", "Expiration": until}
    ).encode()


@pytest.fixture
def exchange() -> Iterator[Endpoint]:
    """A token exchange service that gives keys."""
    with Endpoint() as server:
        server.answer = (200, keys())
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


# ------------------------------------------------------------------------------------ reports


def test_the_longest_report_its_summary_and_labels_fit_a_shadow() -> None:
    longest = Report(
        sequence=1,
        time=NOW,
        state="rejected",
        runtime="1.10.100",
        health=Health(pid=1, started=NOW),
        fleet="11111111-2222-4333-8444-555555555555",
        epoch=10**9,
        number=10**9,
        running=digest_of(b""),
    )
    room = MAX_BYTES - len(longest.encoded())
    data = longest.encoded().replace(b"1.10.100", b"1.10.100" + b"0" * room)
    data = data.replace(b'"runtime"', b'"padding"')
    reported = json.loads(shadow_update(data))["state"]["reported"]
    content = json.dumps({"reported": reported, "desired": {"labels": {}}}, separators=(",", ":"))
    assert len(data) == MAX_BYTES
    assert len(content) + LABEL_BYTES <= SHADOW_BYTES


def test_a_report_is_replaced_as_a_whole() -> None:
    """Shadows merge objects field by field, and lists not."""
    update = json.loads(shadow_update(b'{"number":3,"models":[]}'))
    assert update["state"]["reported"]["report"] == [{"number": 3, "models": []}]
    assert update["state"]["reported"]["number"] == 3


@pytest.mark.parametrize("said", [b"", b"3", b"[" * 5000])
def test_what_is_no_report_is_not_sent(said: bytes) -> None:
    with pytest.raises(DocumentError):
        shadow_update(said)


# ------------------------------------------------------------------------------------- events


def alarm(size: int) -> Event:
    return new_event(Alarm(rule="door", message="x" * size))


def test_events_are_packed_into_as_few_messages_as_hold_them() -> None:
    sent = [alarm(size) for size in (10, 60_000, 60_000, 60_000, 10)]
    messages = packed(sent, MAX_MESSAGE)
    assert len(messages) == 2
    assert all(len(message) <= MAX_MESSAGE for message in messages)
    found = [
        read_event(json.dumps(one).encode())
        for message in messages
        for one in json.loads(message)["events"]
    ]
    assert [event.id for event in found] == [event.id for event in sent]


def test_no_events_make_no_message() -> None:
    assert packed([], MAX_MESSAGE) == []


# -------------------------------------------------------------------------- settings and keys


def test_settings_that_are_newer_than_the_runtime_are_passed_over() -> None:
    assert read_settings({"hotTopic": "t", "future": {"a": 1}}) == Settings(hot_topic="t")


def test_settings_of_a_wrong_type_are_told() -> None:
    with pytest.raises(DocumentError, match=r"edgefleet.Release"):
        read_settings({"pointer": {"number": 3}})


def test_keys_are_kept_while_they_hold(exchange: Endpoint) -> None:
    service = TokenExchange(exchange.address, "token")
    assert service.keys() == service.keys()
    assert [headers["authorization"] for _, headers in exchange.seen] == ["token"]


def test_keys_that_ended_are_access_that_expired(exchange: Endpoint) -> None:
    exchange.answer = (200, keys("2020-01-01T00:00:00Z"))
    with pytest.raises(AccessExpiredError):
        TokenExchange(exchange.address, "token").keys()


@pytest.mark.parametrize(
    "answer, kind",
    [
        ((403, b""), AccessDeniedError),
        ((500, b""), UnavailableError),
        ((200, b"{}"), UnavailableError),
        ((200, b"<html>"), UnavailableError),
    ],
)
def test_what_token_exchange_refuses_is_told_apart(
    exchange: Endpoint, answer: tuple[int, bytes], kind: type[EdgeFleetError]
) -> None:
    exchange.answer = answer
    with pytest.raises(kind):
        TokenExchange(exchange.address, "token").keys()


def test_a_token_exchange_that_hangs_is_given_up_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections, answers nothing
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(UnavailableError, match="no answer"):
            TokenExchange(address, "token", timeout_s=0.05).keys()


def test_a_clock_that_runs_ahead_is_named_in_the_cure(exchange: Endpoint) -> None:
    exchange.answer = (200, keys("2020-01-01T00:00:00Z"))
    with pytest.raises(AccessExpiredError, match="clock"):
        TokenExchange(exchange.address, "token").keys()


def test_keys_that_still_hold_are_used_while_no_newer_ones_come(exchange: Endpoint) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=EARLY_S / 2)
    exchange.answer = (200, keys(soon.isoformat()))
    service = TokenExchange(exchange.address, "token")
    first = service.keys()
    exchange.answer = (500, b"")
    assert service.keys() == first
    assert len(exchange.seen) == 2


def test_keys_are_asked_of_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS_VARIABLE, "http://attacker.example/keys")
    monkeypatch.setenv(TOKEN_VARIABLE, "token")
    with pytest.raises(ConfigurationError, match="this machine"):
        TokenExchange.from_environment()


def test_keys_never_print_their_secret(exchange: Endpoint) -> None:
    assert repr(TokenExchange(exchange.address, "token").keys()) == "<keys ASIA…>"


# ----------------------------------------------------------------------------------------- S3


@pytest.fixture
def bucket(endpoint: Endpoint, exchange: Endpoint) -> Bucket:
    service = TokenExchange(exchange.address, "token")
    return Bucket("fleet", "eu-central-1", service, endpoint=endpoint.address)


def test_a_blob_is_read_with_a_signed_request(bucket: Bucket, endpoint: Endpoint) -> None:
    endpoint.answer = (200, b"data")
    with bucket.source("s3://fleet/plant-3").open(digest_of(b"data"), 0) as stream:
        assert stream.read(100) == b"data"
    ((line, headers),) = endpoint.seen
    assert line.startswith("GET /fleet/plant-3/blobs/sha256/")
    assert "AWS4-HMAC-SHA256 Credential=ASIA/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "t"


@pytest.mark.parametrize(
    "said, kind",
    [
        ((400, "ExpiredToken"), AccessExpiredError),
        ((403, "RequestTimeTooSkewed"), AccessExpiredError),
        ((403, "AccessDenied"), AccessDeniedError),
        ((404, "NoSuchKey"), NotFoundError),
        ((503, "SlowDown"), ThrottledError),
    ],
)
def test_refusals_of_s3_are_told_apart(
    bucket: Bucket,
    endpoint: Endpoint,
    exchange: Endpoint,
    said: tuple[int, str],
    kind: type[EdgeFleetError],
) -> None:
    status, code = said
    endpoint.answer = (status, f"<Error><Code>{code}</Code></Error>".encode())
    with pytest.raises(kind):
        bucket.source("s3://fleet/plant-3").open(digest_of(b"data"), 0)
    with pytest.raises(kind):
        bucket.put("plant-3/devices/cam-1/x", Path(__file__))
    assert len(exchange.seen) == 2, "keys that were refused are asked for anew"


# ----------------------------------------------------------------------------------- requests


def test_a_request_reaches_the_runtimes_own_server(endpoint: Endpoint) -> None:
    endpoint.answer = (200, b"live")
    reply = asker(lambda: endpoint.address)(Request("/v2/health/live", {"a": "b"}, None))
    assert (reply.status, reply.body) == (200, b"live")
    ((line, headers),) = endpoint.seen
    assert line == "GET /v2/health/live"
    assert headers["a"] == "b"


def test_a_request_can_lead_nowhere_else(endpoint: Endpoint) -> None:
    ask = asker(lambda: endpoint.address)
    with pytest.raises(InvalidInputError):
        ask(Request("http://attacker.example/", {}, None))
    with pytest.raises(UnavailableError):
        ask(Request("/v2 HTTP/1.1\r\nHost: x", {}, None))
    assert endpoint.seen == []


def test_a_server_on_a_socket_is_not_asked() -> None:
    with pytest.raises(UnavailableError, match="no plain HTTP"):
        asker(lambda: "unix:/run/edgefleet.sock")(Request("/v2", {}, None))


class Uploads:
    """Where answers go."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}
        self.came = threading.Event()

    def __call__(self, name: str, path: Path) -> None:
        self.found[name] = json.loads(path.read_bytes())
        self.came.set()


def message(**fields: object) -> bytes:
    return json.dumps({"id": "0" * 32, "path": "/v2", **fields}).encode()


def answered(ask: Callable[[Request], Reply], *payloads: bytes) -> dict[str, Any]:
    uploads = Uploads()
    invoker = Invoker(ask, uploads)
    for payload in payloads:
        invoker.received(payload)
    assert uploads.came.wait(TIMEOUT_S)
    return uploads.found


def test_an_answer_is_named_after_its_request() -> None:
    def ask(request: Request) -> Reply:
        return Reply(200, {"a": "b"}, request.body or b"")

    found = answered(ask, message(body="aGk="))
    assert found == {
        f"replies/{'0' * 32}.json": {"status": 200, "headers": {"a": "b"}, "body": "aGk="}
    }


def test_a_server_that_does_not_answer_is_told() -> None:
    def ask(request: Request) -> Reply:
        raise UnavailableError("it is down")

    (answer,) = answered(ask, message()).values()
    assert answer == {"error": "it is down"}


def test_a_full_disk_ends_no_thread_that_answers() -> None:
    uploads = Uploads()
    full = [OSError(errno.ENOSPC, "no space left")] * WORKERS

    def upload(name: str, path: Path) -> None:
        if full:
            raise full.pop()
        uploads(name, path)

    invoker = Invoker(lambda _: Reply(200, {}, b""), upload)
    for number in range(WORKERS + 1):
        invoker.received(message(id=f"{number:032x}"))
    assert uploads.came.wait(TIMEOUT_S)


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"[]", b"[" * 5000, b'{"path":"\xff"}', message(id="../../state/x"), message(body="!")],
)
def test_a_request_that_makes_no_sense_is_dropped(nonsense: bytes) -> None:
    found = answered(lambda _: Reply(200, {}, b""), nonsense, message())
    assert list(found) == [f"replies/{'0' * 32}.json"]
