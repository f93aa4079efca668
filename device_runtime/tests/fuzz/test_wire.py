"""Hostile bytes on a live connection: answers or an end, and others are served as before."""

from __future__ import annotations

import errno
import http.client
import io
import json
import socket
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.tests.serving import (
    LIVE,
    WAIT_S,
    FakeModel,
    Running,
    infer_bytes,
    read_all,
    served,
    serving,
    table_of,
)
from edgefleet_runtime.serve.messages import MIB, Limits

LIMITS = Limits(max_head_bytes=4096, max_body_bytes=MIB, max_held_bytes=2 * MIB)
INFER = b"POST /v2/models/m/infer HTTP/1.1\r\n"
CHUNKED = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
GOOD = infer_bytes(1)
PIECES = (
    *(LIVE, GOOD, CHUNKED, INFER, b"\r\n", b"\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n"),
    *(b"Content-Length: 3\r\n", b"Content-Length: 1\r\n\r\nx", b"Content-Length: 0\r\n\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Expect: 100-continue\r\n", b"Connection: close\r\n"),
    *(b"Inference-Header-Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"ffffffffffffffff\r\n", b"-1\r\n", b"3;a=b\r\n", b"A: " + b"b" * 5000),
    *(b"GET /v2/models/%00/ready HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b"GET /v2/models/m HTTP/1.0\r\n\r\n", b"HEAD /v2 HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02"),
    b'{"inputs": []}',
)
# 501 is due to an unknown transfer coding (RFC 9112, 6.1); bytes may bring about no other 5xx.
ALLOWED_5XX = {501, 503}


class Answer(NamedTuple):
    status: int
    body: bytes


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving(table_of(served(FakeModel(1))), limits=LIMITS) as running:
        yield running


def exchange(server: Running, *parts: bytes) -> bytes:
    """All that comes back for these writes, after which nothing more is sent."""
    with server.connect() as client:
        try:
            for part in parts:
                client.sendall(part)
            client.shutdown(socket.SHUT_WR)
            return read_all(client)
        except ConnectionError:  # it was cut: the client sent on after a refusal
            return b""
        except OSError as error:  # likewise, before the client had said that it has sent all
            if error.errno != errno.ENOTCONN:
                raise
            return b""


def answers(data: bytes) -> list[Answer]:
    """The answers in a stream that holds nothing else; HEAD's have no body."""
    stream, found = io.BytesIO(data), []
    while line := stream.readline():
        version, status, *_ = line.split()
        assert version == b"HTTP/1.1"
        headers = http.client.parse_headers(stream)
        length = int(headers.get("Content-Length", 0))
        if length and data[stream.tell() :].startswith(b"HTTP/1.1"):
            length = 0
        found.append(Answer(int(status), stream.read(length)))
    return found


def check(found: list[Answer]) -> None:
    for status, body in found:
        assert status < 500 or status in ALLOWED_5XX, body
        if status >= 400 and body:
            assert json.loads(body)["error"]


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=40), min_size=1, max_size=8),
    st.lists(st.integers(0, 400), max_size=3),
)
def test_any_bytes_however_they_are_cut_leave_a_server_that_serves(
    server: Running, pieces: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(pieces)
    edges = [0, *sorted(cuts), len(data)]
    check(answers(exchange(server, *(data[a:b] for a, b in pairwise(edges)))))
    assert server.infer(1).json["outputs"][0]["data"] == [2.0]


def bomb(wbits: int) -> bytes:
    """A hundred times what a body may become, in a thousandth of it."""
    deflater = zlib.compressobj(9, wbits=wbits)
    zeros = bytes(MIB)
    return b"".join([*(deflater.compress(zeros) for _ in range(100)), deflater.flush()])


def with_length(body: bytes, *headers: bytes) -> bytes:
    lines = [b"Content-Length: %d" % len(body), *headers]
    return INFER + b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "sent,status",
    [
        (with_length(bomb(31), b"Content-Encoding: gzip"), 413),
        (with_length(bomb(15), b"Content-Encoding: deflate"), 413),
        (with_length(bomb(-15), b"Content-Encoding: deflate"), 413),
        (with_length(b"\x1f\x8b" + bytes(50), b"Content-Encoding: gzip"), 400),
        (with_length(b"{}", b"Inference-Header-Content-Length: 99"), 400),
        (INFER + b"A: " + b"b" * 100_000 + b"\r\n\r\n", 431),
        (INFER + b"".join(b"A%d: b\r\n" % n for n in range(2000)) + b"\r\n", 431),
        (CHUNKED + b"0\r\nA: " + b"b" * 600_000, 431),
        (CHUNKED + b"1;" + b"b" * 600_000, 431),
        (CHUNKED + b"2\r\nab\r\n" * 600_000 + b"0\r\n\r\n", 413),
        (CHUNKED + b"ffffffffffffffffffff\r\n", 400),
        (CHUNKED + b"5\r\nhelloworld\r\n", 400),
    ],
)
def test_what_would_grow_is_refused_with_its_reason(
    server: Running, sent: bytes, status: int
) -> None:
    with server.connect() as client:
        try:
            client.sendall(sent)
        except ConnectionError:  # pragma: no cover - the kernel's buffers decide
            pytest.fail("a refused client is cut before it can read why")
        reply = client.makefile("rb").readline()
    assert int(reply.split()[1]) == status
    assert server.infer(1).status == 200


def test_many_requests_in_one_write_are_all_answered_in_order(server: Running) -> None:
    sent = b"".join(infer_bytes(n) for n in range(200))
    found = answers(exchange(server, sent))
    assert [float(json.loads(body)["id"]) for _, body in found] == [*map(float, range(200))]


def test_nothing_is_left_of_clients_that_are_gone(server: Running) -> None:
    for sent in (INFER, CHUNKED + b"5\r\nhel", with_length(b"x" * 50)[:-9], b"", GOOD):
        exchange(server, sent)
    services = server.server._services
    assert services
    assert [service.held.bytes for service in services] == [0] * len(services)
    assert server.infer(1).status == 200


def send_without_end(client: socket.socket) -> None:
    while True:
        client.sendall(b"GET /v2/models/m HTTP/1.1\r\n\r\n" * 500)


def test_a_client_that_reads_nothing_is_reset_and_leaves_nothing_in_the_kernel() -> None:
    limits = Limits(write_timeout_s=0.2, linger_s=0.2)
    with (
        serving(table_of(served(FakeModel(1))), limits=limits) as server,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(WAIT_S)
        client.connect(server.address)
        with pytest.raises(ConnectionError):
            send_without_end(client)
