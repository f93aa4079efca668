"""Too much, too slow, and what is no HTTP: tried over real sockets."""

from __future__ import annotations

import gc
import socket
import ssl
import weakref
from dataclasses import replace
from http.client import HTTPException

import pytest

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.gateway import digest_field
from edgefleet.testing.waiting import TIMEOUT_S, eventually
from edgefleet_gateway.server import wire
from edgefleet_gateway.server.gateway import Rates
from edgefleet_gateway.server.rates import Rate
from edgefleet_gateway.server.running import Serving
from edgefleet_gateway.server.wire import Connection, Limits
from providers.gateway.tests.exchanges import SEGMENT, everything, patch
from providers.gateway.tests.server_rig import Client, Fleet


def flood(raw: ssl.SSLSocket, chunk: bytes) -> None:
    """Send the same without an end."""
    while True:
        raw.sendall(chunk)


# Too much


def test_a_body_that_is_declared_too_long_is_refused_unread(device: Client) -> None:
    with device.raw() as raw:
        raw.sendall(
            b"PUT /v1/report HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000000000\r\n\r\n"
        )
        answer = everything(raw)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_body_in_chunks_without_an_end_is_refused(device: Client) -> None:
    with device.raw() as raw:
        raw.sendall(
            b"PUT /v1/report HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"4000\r\n" + b" " * 0x4000 + b"\r\n"
        with pytest.raises((ConnectionError, ssl.SSLError)):
            flood(raw, chunk)
    assert device.get("/v1/pointer").status == 204


def test_a_part_longer_than_a_part_may_be_is_refused(fleet: Fleet, device: Client) -> None:
    content = b"x" * (3 << 20)
    assert patch(device, SEGMENT, content, 0, (1 << 20) + 1).status == 413
    huge = patch(device, SEGMENT, b"x", 0, 1, Upload_Length=str(1 << 40), Upload_Complete="?0")
    assert huge.status == 413
    assert patch(device, SEGMENT, content, 0, 1 << 20).status == 204


def test_more_than_the_file_was_said_to_hold_is_refused(fleet: Fleet, device: Client) -> None:
    content = b"x" * 100
    assert patch(device, SEGMENT, content, 0, 100, Upload_Length="50").status == 413
    assert not fleet.receiver.files


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\n" + b"X-Long: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\n" + b"X-Many: a\r\n" * 100 + b"\r\n",
        b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\n" + b"X-Endless: " + b"a" * 200_000,
        b"GET /" + b"a" * 100_000,
    ],
    ids=["long", "many", "endless field", "endless path"],
)
def test_a_flood_of_header_fields_ends_the_connection(device: Client, head: bytes) -> None:
    with device.raw() as raw:
        raw.sendall(head)
        answer = everything(raw)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert device.get("/v1/pointer").status == 204


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GE",
        b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\nX-Slow: ",
        (
            b"PUT /v1/report HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        ),
        b"\r\n",
        b"",
    ],
    ids=["method", "head", "body", "blank", "silent"],
)
def test_a_slow_client_is_hung_up_on(fleet: Fleet, request_bytes: bytes) -> None:
    hurried = Limits(head_s=0.5, body_s=0.5)
    with fleet.gateway(lambda options: replace(options, limits=hurried)) as gateway:
        device = fleet.device(gateway, "cam-1")
        with device.raw() as raw:
            raw.sendall(request_bytes)
            answer = everything(raw)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 ")
        # On a machine with much to do this one may be slow, too.
        eventually(
            lambda: device.get("/v1/pointer").status == 204, ignoring=(OSError, HTTPException)
        )


def test_a_client_that_shakes_no_hands_is_hung_up_on(fleet: Fleet) -> None:
    hurried = Limits(handshake_s=0.5)
    with (
        fleet.gateway(lambda options: replace(options, limits=hurried)) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port), timeout=TIMEOUT_S) as raw,
    ):
        assert everything(raw) == b""


@pytest.mark.parametrize(
    "more",
    [b"", b"GET /v1/po", b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\n\r\n"],
    ids=["nothing", "half a head", "another request"],
)
def test_a_client_that_doesn_t_read_its_answer_is_hung_up_on(fleet: Fleet, more: bytes) -> None:
    blob = fleet.blobs.put_bytes(bytes(32 << 20), "application/octet-stream")
    path = "/v1/blobs/" + blob.digest.replace(":", "/")
    hurried = Limits(reading_s=0.5, head_s=0.5)
    with fleet.gateway(lambda options: replace(options, limits=hurried)) as gateway:
        device = fleet.device(gateway, "cam-1")
        assert gateway.gateway is not None
        streams = gateway.gateway.streams
        free = streams._value
        with device.raw() as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
            raw.recv(1)
            eventually(lambda: open_in(gateway)[0].flow.write_paused)
            raw.sendall(more)
            eventually(lambda: streams._value == free)
            assert len(everything(raw)) < 32 << 20


@pytest.mark.parametrize("more", [b"", b"\r\n"], ids=["nothing", "a blank line"])
def test_a_client_that_asks_nothing_more_is_hung_up_on(fleet: Fleet, more: bytes) -> None:
    hurried = Limits(idle_s=1)
    with (
        fleet.gateway(lambda options: replace(options, limits=hurried)) as gateway,
        fleet.device(gateway, "cam-1").raw() as raw,
    ):
        raw.sendall(b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\n\r\n")
        begun = raw.recv(9)
        raw.sendall(more)
        assert (begun + everything(raw)).startswith(b"HTTP/1.1 204 ")


def test_a_client_whose_body_was_answered_unread_is_hung_up_on_after_it(fleet: Fleet) -> None:
    hurried = Limits(idle_s=1)
    with fleet.gateway(lambda options: replace(options, limits=hurried)) as gateway:
        device = fleet.device(gateway, "cam-1")
        assert patch(device, SEGMENT, b"content", 0, 7).status == 201
        with device.raw() as raw:
            raw.sendall(
                f"PATCH /v1/files/{SEGMENT} HTTP/1.1\r\nHost: gw\r\nContent-Length: 7\r\n"
                "Content-Type: application/partial-upload\r\n"
                f"Repr-Digest: {digest_field(digest_of(b'content'))}\r\nUpload-Offset: 0\r\n"
                "Upload-Length: 7\r\nUpload-Complete: ?1\r\n\r\n".encode()
            )
            begun = raw.recv(9)  # it is there already
            raw.sendall(b"content")
            assert (begun + everything(raw)).startswith(b"HTTP/1.1 204 ")


def test_a_head_behind_an_answer_that_waited_to_be_read_has_an_end(fleet: Fleet) -> None:
    blob = fleet.blobs.put_bytes(bytes(32 << 20), "application/octet-stream")
    path = "/v1/blobs/" + blob.digest.replace(":", "/")
    patient = Limits(head_s=3, reading_s=600, idle_s=600)
    with (
        fleet.gateway(lambda options: replace(options, limits=patient)) as gateway,
        fleet.device(gateway, "cam-1").raw() as raw,
    ):
        raw.sendall(f"GET {path} HTTP/1.1\r\nHost: gw\r\n\r\nGET /v1/po".encode())
        eventually(
            lambda: any(getattr(one.flow, "write_paused", False) for one in open_in(gateway))
        )
        assert everything(raw)


def open_in(gateway: Serving) -> list[Connection]:
    """The connections of a gateway."""
    assert gateway._wire is not None
    there = list(gateway._wire.server_state.connections)
    return [one for one in there if isinstance(one, Connection)]


def connections() -> list[Connection]:
    """All that are in memory, whatever holds them."""
    # `isinstance` would ask each for its class, and what stands for a module loads that then.
    return [one for one in gc.get_objects() if issubclass(type(one), Connection)]


@pytest.mark.parametrize("path", ["/v1/pointer", "/nothing", "/v1/answers/none"])
def test_a_connection_that_ended_is_freed_without_the_garbage_collector(
    fleet: Fleet, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "SWEEP_S", 1e-4)  # several while a connection stands
    others = connections()  # which whatever ran in this process before holds
    with fleet.gateway() as gateway:
        gc.disable()
        try:
            for client in (fleet.device(gateway, "cam-1"), fleet.stranger(gateway)):
                with client.raw() as raw:
                    raw.sendall(f"GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
                    assert raw.recv(1)
                    mine = [weakref.ref(one) for one in connections() if one not in others]
                assert mine
                eventually(lambda: not any(one() for one in mine))  # noqa: B023 - at once
        finally:
            gc.enable()


def test_a_client_that_hangs_up_leaves_no_download_behind(fleet: Fleet) -> None:
    content = bytes(8 << 20)
    blob = fleet.blobs.put_bytes(content, "application/octet-stream")
    path = "/v1/blobs/" + blob.digest.replace(":", "/")
    few = Rates(device=Rate(1000, 10_000), streams=2)
    with fleet.gateway(lambda options: replace(options, rates=few)) as gateway:
        device = fleet.device(gateway, "cam-1")
        for _ in range(20):
            with device.raw() as raw:
                raw.sendall(f"GET {path} HTTP/1.1\r\nHost: gw\r\n\r\n".encode())
        eventually(lambda: device.get(path).status == 200)
        assert gateway.gateway is not None
        streams = gateway.gateway.streams
        eventually(lambda: streams._value == few.streams)
        assert device.get(path).body == content


def test_requests_in_one_go_are_answered_in_turn(device: Client) -> None:
    body = b" " * 30_000
    put = (
        b"POST /v1/events HTTP/1.1\r\nHost: gw\r\nContent-Length: 30000\r\n"
        b"Content-Type: application/cloudevents-batch+json\r\n\r\n" + body
    )
    get = b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\n"
    with device.raw() as raw:
        raw.sendall(get + b"\r\n" + get)
        raw.sendall(b"\r\n" + get + b"Connection: close\r\n\r\n")
        answer = everything(raw)
    assert answer.count(b"HTTP/1.1 204 ") == 3
    with device.raw() as raw:
        raw.sendall(put + get)  # more bytes than a head may have, and none of a head
        assert everything(raw).startswith(b"HTTP/1.1 400 ")


def served(client: Client) -> bool:
    try:
        return client.get("/v1/ca").status == 200
    except (ConnectionError, ssl.SSLError):
        return False


def test_strangers_hold_only_some_of_the_connections(fleet: Fleet) -> None:
    few = Limits(strangers=3)
    with fleet.gateway(lambda options: replace(options, limits=few)) as gateway:
        device = fleet.device(gateway, "cam-1")
        strangers = [fleet.stranger(gateway) for _ in range(4)]
        assert [stranger.get("/v1/ca").status for stranger in strangers[:3]] == [200] * 3
        with pytest.raises((ConnectionError, ssl.SSLError)):
            strangers[3].get("/v1/ca")
        assert device.get("/v1/pointer").status == 204
        strangers[0].close()
        eventually(lambda: served(strangers[3]))


def test_no_more_connections_are_held_than_may_be(fleet: Fleet) -> None:
    few = Limits(connections=2)
    with fleet.gateway(lambda options: replace(options, limits=few)) as gateway:
        devices = [fleet.device(gateway, f"cam-{number}") for number in range(3)]
        assert [device.get("/v1/pointer").status for device in devices[:2]] == [204, 204]
        with pytest.raises((ConnectionError, ssl.SSLError)):
            devices[2].get("/v1/pointer")
        assert devices[0].get("/v1/pointer").status == 204
        devices[1].close()
        eventually(
            lambda: devices[2].get("/v1/pointer").status == 204,
            ignoring=(ConnectionError, ssl.SSLError),
        )


def test_a_device_that_asks_too_often_is_told_when_to_come_back(fleet: Fleet) -> None:
    few = Rates(device=Rate(per_s=0.1, burst=3), stranger=Rate(per_s=0.1, burst=2))
    far = ("192.0.2.0/24",)  # who may observe
    with fleet.gateway(lambda options: replace(options, rates=few, observers=far)) as gateway:
        assert gateway.gateway is not None
        now = gateway.gateway.clock()
        gateway.gateway.clock = lambda: now  # or what this takes would be given back meanwhile
        device, other = fleet.device(gateway, "cam-1"), fleet.device(gateway, "cam-2")
        assert [device.get("/v1/pointer").status for _ in range(4)] == [204, 204, 204, 429]
        assert device.get("/v1/pointer").headers["retry-after"] == "10"
        assert other.get("/v1/pointer").status == 204
        # Another machine that has its name takes nothing of what it may ask.
        assert fleet.device(gateway, "cam-1").get("/v1/pointer").status == 204
        assert device.get("/v1/pointer").status == 429
        stranger = fleet.stranger(gateway)
        asked = [stranger.get("/v1/ca").status, stranger.get("/nothing").status]
        assert asked == [200, 404]
        assert stranger.get("/v1/ca").status == 429
        assert stranger.get("/nothing").status == 429
        assert stranger.get("/metrics").status == 429


# The protocol itself

SMUGGLED = b"GET /v1/ca HTTP/1.1\r\nHost: gw\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: 0\r\nContent-Length: 40\r\n",
        b"Content-Length: 0, 40\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length : 5\r\n",
        b"Content-Length: 5\r\n Transfer-Encoding: chunked\r\n",
    ],
)
def test_a_body_whose_end_two_would_see_differently_ends_the_connection(
    device: Client, fields: bytes
) -> None:
    with device.raw() as raw:
        raw.sendall(
            b"PUT /v1/report HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\n"
            + fields
            + b"\r\n0\r\n\r\n"
            + SMUGGLED
        )
        answer = everything(raw)
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"BEGIN CERTIFICATE" not in answer
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET  / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x00",
        b"GET / HTTP/1.1\nA\n\n",
    ],
)
def test_what_is_no_http_is_refused_in_words(device: Client, head: bytes) -> None:
    with device.raw() as raw:
        raw.sendall(head)
        answer = everything(raw)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


def test_methods_and_paths_of_no_operation_are_refused(device: Client) -> None:
    assert device.ask("DELETE", "/v1/pointer").problem()["status"] == 405
    assert device.ask("HEAD", "/v1/pointer").status == 405
    assert device.get("/v1/pointer/").problem()["status"] == 404
    assert device.get("/").problem()["status"] == 404
    assert device.ask("GET", "/v1/pointer", b"a body").problem()["status"] == 400


def test_an_address_that_a_header_names_is_not_believed(fleet: Fleet) -> None:
    far = ("192.0.2.0/24",)
    with fleet.gateway(lambda options: replace(options, observers=far)) as gateway:
        near = fleet.stranger(gateway)
        assert near.get("/metrics", X_Forwarded_For="192.0.2.1").status == 404
