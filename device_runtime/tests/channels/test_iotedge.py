"""What the IoT Edge channel makes of a twin, puts on the wire, and makes of what comes back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message as Headers
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    DocumentError,
    EdgeFleetError,
    InvalidInputError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.report import MAX_BYTES
from edgefleet.testing.kit.channel_ends import Started
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.again import ReadAgain
from edgefleet_runtime.channels.iotedge import blob
from edgefleet_runtime.channels.iotedge.channel import IotEdgeChannel
from edgefleet_runtime.channels.iotedge.methods import BUSY, MAX_PAYLOAD, Methods
from edgefleet_runtime.channels.iotedge.module import CONNECTION_VARIABLE, DEVICE_VARIABLE
from edgefleet_runtime.channels.iotedge.twin import (
    MAX_PIECES,
    ReadAccess,
    UploadAccess,
    changes,
    pieces,
    read_desired,
    reported,
)
from edgefleet_runtime.channels.requests import MAX_WAITING, WORKERS, Reply, Request
from edgefleet_runtime.cli import main

MAX_VALUE = 4096  # bytes of a value in a twin
SIGNATURE = "sv=2024-11-04&sr=c&sp=r&sig=abc%2Bdef%3D"
TIMEOUT_S = 90.0


# -------------------------------------------------------------------------------------- the twin


def test_what_a_twin_says_is_read() -> None:
    wanted = read_desired(
        {
            "edgefleet": {
                "pointer": "{}",
                "access": {"read": SIGNATURE, "expires": "2026-12-01T00:00:00Z"},
                "future": 1,
            },
            "edgefleetUpload": {"address": "https://a.test/d/cam-1", "write": SIGNATURE},
            "$version": 7,
        }
    )
    assert wanted.pointer == "{}"
    assert wanted.access == ReadAccess(read=SIGNATURE, expires=datetime(2026, 12, 1, tzinfo=UTC))
    assert wanted.upload == UploadAccess(address="https://a.test/d/cam-1", write=SIGNATURE)


def test_a_twin_without_our_properties_wants_nothing() -> None:
    wanted = read_desired({"$version": 1})
    assert (wanted.pointer, wanted.access, wanted.upload) == ("", None, None)


@pytest.mark.parametrize(
    "desired",
    [
        {"edgefleet": {"pointer": {"number": 3}}},
        {"edgefleet": {"access": {"read": "sig=secret value"}}},
        {"edgefleet": {"access": {"read": "sig=secret\r\nHost: x"}}},
        {"edgefleetUpload": {"address": "ftp://x", "write": "sig=secret"}},
        {"edgefleetUpload": "sig=secret"},
    ],
)
def test_what_makes_no_sense_in_a_twin_is_told_without_what_is_secret(
    desired: dict[str, Any],
) -> None:
    with pytest.raises(DocumentError) as caught:
        read_desired(desired)
    assert "secret" not in str(caught.value)


@given(st.text(max_size=9000))
def test_pieces_hold_a_text_whole_and_fit_a_twins_values(text: str) -> None:
    found = pieces(text)
    assert "".join(found) == text
    assert all(0 < len(piece.encode()) <= MAX_VALUE for piece in found)


def test_the_longest_report_fits_the_twin() -> None:
    text = json.dumps({"state": "ü" * 3000}, ensure_ascii=False)
    text = text[:-2] + "x" * (MAX_BYTES - len(text.encode())) + text[-2:]
    found = reported(text.encode())
    assert len(text.encode()) == MAX_BYTES
    assert len(found["report"]) == MAX_PIECES
    assert len(json.dumps(found, ensure_ascii=False).encode()) <= 16 << 10


@pytest.mark.parametrize("said", [b"", b"3", b"[" * 5000, b'{"a":"' + b"x" * 20_000 + b'"}'])
def test_what_is_no_report_is_not_sent(said: bytes) -> None:
    with pytest.raises(DocumentError):
        reported(said)


def test_a_shorter_report_takes_the_pieces_of_a_longer_one_away() -> None:
    longer = reported(b'{"number":1,"a":"' + b"x" * 5000 + b'"}')
    patch = changes(longer, reported(b'{"number":2}'))
    assert patch["report"]["1"] is None
    assert patch["summary"] == {"number": 2}


def test_an_equal_report_changes_nothing() -> None:
    assert changes(reported(b'{"number":1}'), reported(b'{"number":1}')) == {}


# ----------------------------------------------------------------------------------- read again


def test_what_was_read_is_not_read_again_before_it_is_told_of() -> None:
    again = ReadAgain(1000.0)
    due = [again.due]
    with again.reading():
        due.append(again.due)
    again.tell()
    due.append(again.due)
    assert due == [True, False, True]
    assert again.wait(0.0)


def test_a_reading_that_failed_is_repeated_later() -> None:
    again = ReadAgain(1000.0)
    with pytest.raises(UnavailableError), again.reading():
        raise UnavailableError("away")
    again.tell()
    assert not again.due  # not at once: a whole fleet may have lost the same network


# ---------------------------------------------------------------------------------- blob storage


class Endpoint(ThreadingHTTPServer):
    """Answers everything with ``answer``: status, ``x-ms-error-code``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer: tuple[int, str] = (200, "")
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint
    wbufsize = -1

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append((f"{self.command} {self.path}", headers, body))
        status, code = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if code:
            self.send_header("x-ms-error-code", code)
        self.end_headers()

    do_PUT = do_GET  # noqa: N815 - http.server's names

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


def put(endpoint: Endpoint, path: Path, ended: blob.Ended | None = None) -> None:
    access = UploadAccess(address=f"{endpoint.address}/cam-1", write=SIGNATURE)
    blob.put(access, "segments/a b.zst", path, ended or blob.Ended())


def test_a_segment_is_written_once_below_the_devices_prefix(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    path = tmp_path / "segment"
    path.write_bytes(b"data")
    put(endpoint, path)
    ((line, headers, body),) = endpoint.seen
    assert line == f"PUT /models/cam-1/segments/a%20b.zst?{SIGNATURE}"
    assert (headers["if-none-match"], headers["x-ms-blob-type"], body) == (
        "*",
        "BlockBlob",
        b"data",
    )


@pytest.mark.parametrize(
    "answer",
    [(409, "BlobAlreadyExists"), (403, "UnauthorizedBlobOverwrite"), (412, "ConditionNotMet")],
)
def test_a_segment_that_is_there_already_is_done(
    endpoint: Endpoint, answer: tuple[int, str]
) -> None:
    endpoint.answer = answer
    put(endpoint, Path(__file__))


@pytest.mark.parametrize(
    "answer, kind",
    [
        ((403, "AuthenticationFailed"), AccessExpiredError),
        ((403, "AuthorizationPermissionMismatch"), AccessDeniedError),
        ((503, "ServerBusy"), ThrottledError),
        ((500, "InternalError"), UnavailableError),
    ],
)
def test_refusals_of_storage_are_told_apart_and_show_no_signature(
    endpoint: Endpoint, answer: tuple[int, str], kind: type[EdgeFleetError]
) -> None:
    endpoint.answer = answer
    source = blob.source(endpoint.address, lambda: SIGNATURE, blob.Ended())
    for work in (lambda: source.open(digest_of(b""), 0), lambda: put(endpoint, Path(__file__))):
        with pytest.raises(kind) as caught:
            work()
        assert "sig=" not in f"{caught.value} {caught.value.__cause__}"


def test_a_signature_that_was_refused_counts_as_ended_until_it_is_renewed(
    endpoint: Endpoint,
) -> None:
    ended = blob.Ended()
    endpoint.answer = (403, "AuthenticationFailed")
    assert not ended.knows(SIGNATURE, None)
    with pytest.raises(AccessExpiredError):
        put(endpoint, Path(__file__), ended)
    assert ended.knows(SIGNATURE, None)
    assert not ended.knows(f"{SIGNATURE}2", None)


@pytest.mark.parametrize("ahead", [timedelta(days=-400), timedelta(days=400)])
def test_a_device_with_a_wrong_clock_goes_by_the_servers(ahead: timedelta) -> None:
    now = datetime.now(UTC)
    ended, headers = blob.Ended(), Headers()
    assert not ended.knows(SIGNATURE, now - timedelta(days=4000))  # nobody told the time yet
    headers["Date"] = format_datetime(now + ahead, usegmt=True)
    ended.heard(headers)
    assert ended.knows(SIGNATURE, now + ahead - timedelta(minutes=1))
    assert not ended.knows(SIGNATURE, now + ahead + timedelta(minutes=1))


@pytest.mark.parametrize(
    "address, shown",
    [
        ("https://plant.blob.core.windows.net/p-models", True),
        ("https://plant.blob.core.windows.net.attacker.example/p-models", False),
        ("http://plant.blob.core.windows.net/p-models", False),
        ("https://mirror.plant/p-models", False),
    ],
)
def test_a_signature_is_shown_to_azures_storage_only(address: str, *, shown: bool) -> None:
    assert blob.meant_for(ReadAccess(read=SIGNATURE), address, None) is shown


def test_a_signature_for_one_container_is_shown_to_no_other() -> None:
    access = ReadAccess(read=SIGNATURE, at="https://localhost:1/account/p-models")
    assert blob.meant_for(access, "https://localhost:1/account/p-models", None)
    assert not blob.meant_for(access, "https://localhost:1/account/p-models-of-others", None)


def test_a_signature_is_shown_to_the_host_that_the_device_writes_to() -> None:
    upload = UploadAccess(address="https://storage.plant:1/account/p-devices/cam-1", write="sig=a")
    access = ReadAccess(read=SIGNATURE)
    assert blob.meant_for(access, "https://storage.plant:1/account/p-models", upload)
    assert not blob.meant_for(access, "https://storage.plant:2/account/p-models", upload)


# ------------------------------------------------------------------------------- direct methods


class Asked:
    """Answers that came, by the order of their requests."""

    def __init__(self, methods: Methods) -> None:
        self.answers: list[tuple[int, Any]] = []
        self._methods = methods
        self._came = threading.Semaphore(0)

    def __call__(self, name: str, payload: object = None) -> tuple[int, Any]:
        self.start(name, payload)
        assert self._came.acquire(timeout=TIMEOUT_S)
        return self.answers[-1]

    def start(self, name: str, payload: object = None) -> None:
        self._methods.asked(name, payload, self._answered)

    def _answered(self, status: int, payload: Any) -> None:
        self.answers.append((status, payload))
        self._came.release()


@pytest.mark.parametrize("name", ["status", "rollback", "capture", "trial"])
def test_an_order_is_a_method_of_its_own(name: str) -> None:
    def ask(request: Request) -> Reply:
        return Reply(409, {}, b'{"path":"%s","body":%s}' % (request.path.encode(), request.body))

    methods = Methods()
    asked = Asked(methods)
    assert asked(name)[0] == 503
    methods.serve(ask)
    path = f"/edgefleet/{name}"
    assert asked(name, {"reason": "smoke"}) == (409, {"path": path, "body": {"reason": "smoke"}})
    assert asked(name, None) == (409, {"path": path, "body": {}})


def test_a_request_is_answered_by_the_runtimes_server() -> None:
    def ask(request: Request) -> Reply:
        return Reply(200, {"a": request.path}, request.body or b"")

    methods = Methods()
    asked = Asked(methods)
    assert asked("invoke", {"path": "/v2"})[0] == 503
    methods.serve(ask)
    answer = {"status": 200, "headers": {"a": "/v2"}, "body": "aGk="}
    assert asked("invoke", {"path": "/v2", "body": "aGk="}) == (200, answer)


@pytest.mark.parametrize("payload", [None, 3, {"path": 3}, {"path": "/v2", "body": "!"}])
def test_a_request_that_makes_no_sense_is_refused(payload: object) -> None:
    methods = Methods()
    methods.serve(lambda _: Reply(200, {}, b""))
    assert Asked(methods)("invoke", payload)[0] == 400


def test_a_method_that_is_unknown_is_refused() -> None:
    assert Asked(Methods())("reboot")[0] == 404


def test_an_answer_that_no_method_carries_is_told_so() -> None:
    methods = Methods()
    methods.serve(lambda _: Reply(200, {}, b"x" * MAX_PAYLOAD))
    status, answer = Asked(methods)("invoke", {"path": "/v2"})
    assert status == 200
    assert str(MAX_PAYLOAD) in answer["error"]


def test_more_requests_than_can_wait_are_refused_at_once() -> None:
    hold = threading.Event()

    def ask(request: Request) -> Reply:
        assert hold.wait(TIMEOUT_S)
        return Reply(200, {}, b"")

    methods = Methods()
    methods.serve(ask)
    asked = Asked(methods)
    deadline = time.monotonic() + TIMEOUT_S
    for _ in range(WORKERS + MAX_WAITING + 1):
        asked.start("invoke", {"path": "/v2"})
    assert time.monotonic() < deadline
    assert BUSY in [status for status, _ in asked.answers]
    hold.set()


# ----------------------------------------------------------------------------- the environment


@pytest.fixture
def no_agent(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without an IoT Edge agent."""
    monkeypatch.delenv(DEVICE_VARIABLE, raising=False)
    monkeypatch.delenv(CONNECTION_VARIABLE, raising=False)
    return monkeypatch


def test_a_channel_that_closes_leaves_no_loop(no_agent: pytest.MonkeyPatch) -> None:
    named = "HostName=h;DeviceId=cam-2;ModuleId=m;SharedAccessKey=YQ==;GatewayHostName=127.0.0.1"
    no_agent.setenv(CONNECTION_VARIABLE, named)
    started = Started()
    with started.watching():
        channel = IotEdgeChannel("cam-2")
        assert started.left()
        channel.close()
        channel.close()
        eventually(lambda: not started.left(), started.left)
    with pytest.raises(UnavailableError, match="closed"):
        channel.pointer()


def test_the_device_is_called_as_its_agent_says(no_agent: pytest.MonkeyPatch) -> None:
    assert IotEdgeChannel.own_device() is None
    no_agent.setenv(CONNECTION_VARIABLE, "HostName=h;DeviceId=cam-2;ModuleId=m;SharedAccessKey=a=")
    assert IotEdgeChannel.own_device() == "cam-2"
    no_agent.setenv(DEVICE_VARIABLE, "cam-1")
    assert IotEdgeChannel.own_device() == "cam-1"


def test_another_name_than_the_agents_is_refused(no_agent: pytest.MonkeyPatch) -> None:
    no_agent.setenv(DEVICE_VARIABLE, "cam-1")
    with pytest.raises(ConfigurationError, match="cam-1"):
        IotEdgeChannel.from_options({}, device="cam-2")


def test_without_an_agent_the_channel_says_so(no_agent: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no IoT Edge agent"):
        IotEdgeChannel.from_options({}, device="cam-1")


def test_a_device_that_nobody_names_is_told_so(
    no_agent: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--root", str(tmp_path), "--channel", "iotedge"]) == 1
    assert "--device NAME" in capsys.readouterr().err


def test_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="pointer"):
        IotEdgeChannel.from_options({"pointer": "x"}, device="cam-1")


def test_a_device_name_that_is_no_path_is_refused(no_agent: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError):
        IotEdgeChannel.from_options({}, device="../cam")
