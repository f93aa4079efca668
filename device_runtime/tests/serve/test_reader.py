"""Bytes to requests: however they are cut, within limits, and whatever they are."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections import deque
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.reader import Held, Phase, RequestReader

SMALL = Limits(max_head_bytes=200, max_body_bytes=50, max_held_bytes=120)
STREAM = (
    b"GET /v2 HTTP/1.1\r\nHost: a\r\n\r\n"
    b"POST /v2/models/m/infer?q=1 HTTP/1.1\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 5\r\n\r\nhello"
    b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    b"GET /last HTTP/1.0\r\n\r\n"
)


def reader(limits: Limits = SMALL) -> RequestReader:
    return RequestReader(limits, Held())


def told(read: RequestReader) -> list[tuple[Any, ...]]:
    return [(r.method, r.target, r.headers, r.body, r.keep_alive, r.http10) for r in read.ready]


def whole() -> list[tuple[Any, ...]]:
    read = reader()
    read.feed(STREAM)
    return told(read)


def test_requests_are_read_in_order() -> None:
    assert whole() == [
        ("GET", b"/v2", {b"host": b"a"}, b"", True, False),
        (
            "POST",
            b"/v2/models/m/infer?q=1",
            {b"x-a": b"1, 2", b"content-length": b"5"},
            b"hello",
            True,
            False,
        ),
        ("POST", b"/c", {b"transfer-encoding": b"chunked"}, b"abcde", True, False),
        ("GET", b"/last", {}, b"", False, True),
    ]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_how_the_bytes_are_cut_makes_no_difference(cuts: list[int]) -> None:
    read = reader()
    edges = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(edges):
        read.feed(STREAM[start:end])
    assert told(read) == whole()


LARGE = bytes(range(256)) * 1200  # of which the parser needn't see everything
AROUND = (
    b"POST /a HTTP/1.1\r\nConnection: keep-alive\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
    + LARGE
    + b"POST /b HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(LARGE)
    + LARGE
    + STREAM
)
DIGEST = hashlib.sha256(LARGE).hexdigest()


@given(st.lists(st.integers(0, len(AROUND)), max_size=12), st.integers(1, 1 << 18))
def test_how_large_bodies_are_cut_makes_no_difference(cuts: list[int], most: int) -> None:
    held = Held()
    read = RequestReader(Limits(), held)
    edges = sorted({0, *cuts, *range(0, len(AROUND), max(most, 1 << 10)), len(AROUND)})
    for start, end in pairwise(edges):
        read.feed(AROUND[start:end])
    first, second, *others = told(read)
    assert [hashlib.sha256(body).hexdigest() for body in (first[3], second[3])] == [DIGEST] * 2
    assert (first[1], first[4:], second[1], second[4:]) == (
        b"/a",
        (True, False),
        b"/b",
        (False, True),
    )
    assert others == whole()
    assert held.bytes == sum(len(request.body) for request in read.ready)


@pytest.mark.parametrize("more", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 400000\r\n"])
def test_a_large_body_with_two_lengths_is_refused(more: bytes) -> None:
    read = RequestReader(Limits(), Held())
    for data in (b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n" + more + b"\r\n", LARGE, LARGE):
        read.feed(data)
    assert read.refusal is not None
    assert (read.refusal.status, read.ready) == (400, deque())


def test_what_is_left_of_a_large_body_counts_among_what_is_held() -> None:
    held = Held()
    read = RequestReader(Limits(max_held_bytes=200_000), held)
    read.feed(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(LARGE))
    for start in range(0, len(LARGE), 50_000):
        read.feed(LARGE[start : start + 50_000])
    assert read.refusal is not None
    assert read.refusal.status == 503
    assert (read.phase, held.bytes) == (Phase.STOPPED, 0)


def test_a_large_body_in_single_bytes_takes_no_more_memory_than_they_do() -> None:
    read = RequestReader(Limits(), Held())
    read.feed(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(LARGE))
    tracemalloc.start()
    try:
        for value in LARGE[:100_000]:
            read.feed(b"%c" % value)
        assert tracemalloc.get_traced_memory()[0] < 200_000
    finally:
        tracemalloc.stop()


@given(st.lists(st.binary(max_size=60) | st.sampled_from(STREAM.split(b"\r\n")), max_size=12))
def test_arbitrary_bytes_give_requests_or_one_refusal(pieces: list[bytes]) -> None:
    held = Held()
    read = RequestReader(SMALL, held)
    for piece in pieces:
        read.feed(piece)
        assert held.bytes <= SMALL.max_held_bytes + len(piece)
    if read.refusal is not None:
        assert read.phase is Phase.STOPPED
        assert 400 <= read.refusal.status < 600
    read.drop()
    assert held.bytes == 0


@pytest.mark.parametrize(
    "sent,status",
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /\xff\xfe HTTP/9.9\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 250 + b"\r\n\r\n", 431),
        (b"GET /" + b"b" * 250 + b" HTTP/1.1\r\n\r\n", 414),
        (b"POST / HTTP/1.1\r\nContent-Length: 51\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na", 400),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n33\r\n" + b"a" * 51 + b"\r\n",
            413,
        ),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n", 417),
    ],
)
def test_what_can_not_be_read_is_refused(sent: bytes, status: int) -> None:
    read = reader()
    read.feed(sent)
    assert read.refusal is not None
    assert read.refusal.status == status
    assert not read.ready


def test_a_header_without_end_is_refused_before_it_ends() -> None:
    read = reader()
    read.feed(b"GET / HTTP/1.1\r\nA: ")
    for _ in range(5):
        read.feed(b"b" * 50)
    assert read.refusal is not None
    assert read.refusal.status == 431


def test_long_bodies_do_not_count_as_headers() -> None:
    read = reader(Limits(max_head_bytes=200, max_body_bytes=1000))
    one = b"POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + b"a" * 900
    read.feed(one * 2 + one[:20])
    read.feed(one[20:])
    assert read.refusal is None
    assert [len(r.body) for r in read.ready] == [900] * 3


def test_all_bodies_together_are_capped() -> None:
    held = Held()
    one = b"POST / HTTP/1.1\r\nContent-Length: 50\r\n\r\n" + b"a" * 50
    readers = [RequestReader(SMALL, held) for _ in range(3)]
    for read in readers:
        read.feed(one)
    assert [read.refusal and read.refusal.status for read in readers] == [None, None, 503]
    assert held.bytes == 100
    for read in readers:
        read.drop()
    assert held.bytes == 0


def test_requests_before_a_refusal_are_still_there() -> None:
    read = reader()
    read.feed(b"GET /a HTTP/1.1\r\n\r\nnonsense\r\n\r\n")
    assert [r.target for r in read.ready] == [b"/a"]
    assert read.refusal is not None


def test_an_upgrade_is_answered_as_a_plain_request_and_ends_the_connection() -> None:
    read = reader()
    read.feed(
        b"GET /v2 HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\nPRI * x"
    )
    assert [(r.target, r.keep_alive) for r in read.ready] == [(b"/v2", False)]
    assert (read.phase, read.refusal) == (Phase.STOPPED, None)


def test_a_client_that_waits_for_a_go_ahead_is_noticed() -> None:
    read = reader()
    read.feed(b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n")
    waiting = read.expects_continue
    read.feed(b"a")
    assert (waiting, read.expects_continue) == (True, False)
    assert len(read.ready) == 1


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("start", [b"0\r\na", b"0\r\na: ", b"2;", b"1\r\na\r\n0\r\na: "])
def test_what_frames_a_body_has_the_limit_of_a_head(start: bytes) -> None:
    read = reader()
    read.feed(CHUNKED + start)
    for _ in range(5):
        read.feed(b"b" * 50)
    assert read.refusal is not None
    assert read.refusal.status == 431


def test_a_trailer_changes_no_header() -> None:
    read = reader()
    read.feed(CHUNKED + b"1\r\na\r\n0\r\nContent-Encoding: gzip\r\n\r\n")
    (request,) = read.ready
    assert request.body == b"a"
    assert request.headers == {b"transfer-encoding": b"chunked"}


def test_a_body_in_tiny_chunks_takes_no_more_memory_than_its_bytes() -> None:
    read = reader(Limits())
    read.feed(CHUNKED)
    tracemalloc.start()
    try:
        for _ in range(100):
            read.feed(b"2\r\nab\r\n" * 1000)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 2 * 200_000
    read.feed(b"0\r\n\r\n")
    assert read.ready[0].body == b"ab" * 100_000


def test_small_and_large_pieces_of_a_body_keep_their_order() -> None:
    read = reader(Limits())
    pieces = [b"a", b"b" * 2, b"c" * 5000, b"d", b"e" * 3, b"f" * 5000, b"g"]
    read.feed(CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n")
    assert read.ready[0].body == b"".join(pieces)


def test_what_waits_on_one_connection_is_capped() -> None:
    read = reader()
    read.feed(b"GET / HTTP/1.1\r\n\r\n" * 2000)
    assert len(read.ready) == 1024
    assert read.refusal is not None
    assert read.refusal.status == 503
