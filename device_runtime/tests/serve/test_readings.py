"""Readings over HTTP: taken whole or refused with the place, never from a web page."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.serving import Running, serving
from edgefleet.errors import InvalidInputError, UnavailableError
from edgefleet.protocol.event import Reading
from edgefleet_runtime.readings import ReadingsClient
from edgefleet_runtime.serve.extensions.readings import MAX_READINGS, read_readings
from edgefleet_runtime.serve.extensions.service import READINGS as PATH
from edgefleet_runtime.serve.table import ModelTable

ONE = {"stream": "motor", "key": "m1", "values": {"v": 1.5}}
TIME = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class Ear:
    """Takes readings while there is room."""

    def __init__(self) -> None:
        self.heard: list[tuple[Reading, float | None]] = []
        self.room = 1_000_000

    def __call__(self, reading: Reading, time: float | None) -> bool:
        if len(self.heard) >= self.room:
            return False
        self.heard.append((reading, time))
        return True


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def server(ear: Ear) -> Iterator[Running]:
    with serving(ModelTable(), hear=ear) as running:
        yield running


def lines(*readings: object) -> bytes:
    return b"".join(json.dumps(reading).encode() + b"\n" for reading in readings)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps([ONE, {**ONE, "key": "m2"}]).encode(),
        lines(ONE, {**ONE, "key": "m2"}),
        b"\n" + lines(ONE) + b"\r\n" + lines({**ONE, "key": "m2"}),
    ],
    ids=["array", "lines", "lines with blank ones"],
)
def test_readings_are_taken_in_order(server: Running, ear: Ear, body: bytes) -> None:
    reply = server.ask("POST", PATH, body)
    assert (reply.status, reply.json) == (200, {"taken": 2})
    assert [(reading.key, time) for reading, time in ear.heard] == [("m1", None), ("m2", None)]
    assert ear.heard[0][0] == Reading(stream="motor", key="m1", values={"v": 1.5})


def test_time_of_a_reading_is_kept(server: Running, ear: Ear) -> None:
    server.ask("POST", PATH, lines({**ONE, "time": TIME.isoformat()}))
    assert ear.heard[0][1] == TIME.timestamp()


def test_compressed_readings_are_taken(server: Running, ear: Ear) -> None:
    headers = {"Content-Encoding": "gzip"}
    assert server.ask("POST", PATH, gzip.compress(lines(ONE)), headers).status == 200
    assert len(ear.heard) == 1


WRONG: dict[str, object] = {
    "no stream": {"values": {"v": 1.0}},
    "no values": {"stream": "motor"},
    "nothing in the values": {"stream": "motor", "values": {}},
    "a text for a number": {"stream": "motor", "values": {"v": "1"}},
    "an unknown field": {**ONE, "unit": "mm"},
    "a stream with blanks": {**ONE, "stream": "the motor"},
    "a long key": {**ONE, "key": "k" * 129},
    "too many values": {**ONE, "values": {str(n): 1.0 for n in range(65)}},
    "a time without a zone": {**ONE, "time": "2026-11-21T12:00:00"},
    "a number": 3,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("array", [True, False])
def test_malformed_reading_refuses_all_and_is_counted(
    server: Running,
    ear: Ear,
    wrong: object,
    array: bool,  # noqa: FBT001
) -> None:
    several = (ONE, ONE, wrong, ONE)
    body = json.dumps(several).encode() if array else lines(*several)
    reply = server.ask("POST", PATH, body)
    assert reply.status == 400
    assert reply.json["error"].startswith("reading 2: ")
    assert ear.heard == []


@pytest.mark.parametrize(
    "body", [b"[", b"[1", b"{", b"\xff", b"[{}]]", b'{"stream":"a","values":{"v":1e999}}']
)
def test_what_is_no_json_is_refused(server: Running, ear: Ear, body: bytes) -> None:
    assert server.ask("POST", PATH, body).status == 400
    assert ear.heard == []


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b",".join([json.dumps(ONE).encode()] * (MAX_READINGS + 1)) + b"]",
        lines(ONE) * (MAX_READINGS + 1),
        b" " * ((1 << 20) + 1),
    ],
    ids=["array", "lines", "bytes"],
)
def test_too_many_are_refused(server: Running, ear: Ear, body: bytes) -> None:
    assert server.ask("POST", PATH, body).status in {400, 413}
    assert ear.heard == []


def test_bomb_is_refused(server: Running, ear: Ear) -> None:
    headers = {"Content-Encoding": "gzip"}
    assert server.ask("POST", PATH, gzip.compress(b" " * (8 << 20)), headers).status in {
        400,
        413,
    }
    assert ear.heard == []


def test_what_finds_no_room_is_told(server: Running, ear: Ear) -> None:
    ear.room = 3
    reply = server.ask("POST", PATH, lines(*[ONE] * 5))
    assert (reply.status, reply.json["taken"], len(ear.heard)) == (503, 3, 3)
    assert reply.headers["Retry-After"] == "1"


def test_web_page_is_refused(server: Running, ear: Ear) -> None:
    headers = {"Origin": "http://evil.example"}
    assert server.ask("POST", PATH, lines(ONE), headers).status == 400
    assert ear.heard == []


def test_only_post_is_answered(server: Running) -> None:
    assert server.ask("GET", PATH).status == 405


def test_server_that_nobody_watches_takes_none() -> None:
    with serving(ModelTable()) as running:
        assert running.ask("POST", PATH, lines(ONE)).status == 404
        assert "edgefleet_readings" not in running.ask("GET", "/v2").json["extensions"]


def test_extension_is_listed(server: Running) -> None:
    assert "edgefleet_readings" in server.ask("GET", "/v2").json["extensions"]


def test_client_sends_readings(server: Running, ear: Ear) -> None:
    with ReadingsClient(server.server.endpoint) as client:
        client.send("motor", {"v": 1.0, "w": None}, key="m1", time=TIME)
        client.send("motor", {"v": 2.0})
    assert [(reading.key, dict(reading.values), time) for reading, time in ear.heard] == [
        ("m1", {"v": 1.0, "w": None}, TIME.timestamp()),
        ("", {"v": 2.0}, None),
    ]


def test_client_sends_over_a_unix_socket(ear: Ear, tmp_path: Path) -> None:
    with (
        serving(ModelTable(), None, uds=tmp_path / "s", hear=ear) as running,
        ReadingsClient(running.server.endpoint) as client,
    ):
        client.send("motor", {"v": 1.0})
    assert len(ear.heard) == 1


def test_client_tells_what_is_malformed(server: Running) -> None:
    with (
        ReadingsClient(server.server.endpoint) as client,
        pytest.raises(InvalidInputError, match="reading 0"),
    ):
        client.send("the motor", {"v": 1.0})


def test_client_tells_that_there_is_no_room(server: Running, ear: Ear) -> None:
    ear.room = 0
    with (
        ReadingsClient(server.server.endpoint) as client,
        pytest.raises(UnavailableError, match="no room"),
    ):
        client.send("motor", {"v": 1.0})


@pytest.mark.parametrize("endpoint", ["ftp://host", "127.0.0.1:80", ""])
def test_client_refuses_what_is_no_address(endpoint: str) -> None:
    with pytest.raises(InvalidInputError):
        ReadingsClient(endpoint)


@given(st.binary(max_size=60) | st.text(alphabet='[]{}":,1e.- \n', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        found = read_readings(body)
    except InvalidInputError:
        return
    assert all(each.values for each in found)
