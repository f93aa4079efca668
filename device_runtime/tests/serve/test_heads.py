"""Heads that come again: what is remembered, and that it means the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet_runtime.serve.heads import MAX_HEADS
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.reader import Held, Phase, RequestReader


def request(body: bytes = b"abc", *extra: str, line: str = "POST /x HTTP/1.1") -> bytes:
    head = [line, f"Content-Length: {len(body)}", *extra]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def reader(held: Held | None = None, **limits: int) -> RequestReader:
    return RequestReader(Limits(**limits), held or Held())


def test_a_request_with_a_head_that_came_before_is_known_whole() -> None:
    held = Held()
    first = reader(held)
    assert first.whole(request()) is None
    first.feed(request())
    again = reader(held).whole(request(b"xyz"))
    assert again is not None
    assert (again.method, again.target, again.body) == ("POST", b"/x", b"xyz")
    assert again.headers == first.ready[0].headers
    assert again.head is first.ready[0].head
    assert held.bytes == 6


def test_heads_that_alternate_are_told_apart() -> None:
    held = Held()
    for path in ("/a", "/b"):
        reader(held).feed(request(line=f"POST {path} HTTP/1.1"))
    for _ in range(2):
        for target in (b"/a", b"/a", b"/b"):
            again = reader(held).whole(request(b"xyz", line=f"POST {target.decode()} HTTP/1.1"))
            assert again is not None
            assert again.target == target


@pytest.mark.parametrize("data", [request()[:-1], request() + b"P", request(b"abcd"), b"", b"POST"])
def test_more_or_less_than_one_request_is_left_to_the_parser(data: bytes) -> None:
    known = reader()
    known.feed(request())
    assert known.whole(data) is None


def test_inside_a_request_nothing_is_taken_for_a_new_one() -> None:
    known = reader()
    known.feed(request())
    known.feed(request(b"?" * 200)[:-100])
    assert known.phase is Phase.BODY
    assert known.whole(request()) is None


@pytest.mark.parametrize(
    "data",
    [
        request(b"", "Transfer-Encoding: chunked"),
        request(b"abc", "Connection: close"),
        request(b"abc", "Connection: keep-alive"),
        request(b"abc", "Expect: 100-continue"),
        request(b"abc", "Authorization: Bearer x"),
        request(b"abc", "Traceparent: x"),
        request(line="POST /x HTTP/1.0"),
        request(b"abc", "Long: " + "x" * 3000),
        b"\r\n" + request(),
        request() + request(),
    ],
)
def test_heads_that_say_more_than_that_are_not_remembered(data: bytes) -> None:
    held = Held()
    reader(held).feed(data)
    assert len(held.heads) == 0


def test_what_is_remembered_is_capped() -> None:
    held = Held()
    known = reader(held)
    for number in range(MAX_HEADS + 10):
        known.feed(request(b"abc", f"Id: {number}"))
    assert len(held.heads) <= MAX_HEADS


def test_a_known_head_is_no_way_around_the_limit_of_held_bytes() -> None:
    held = Held()
    known = reader(held, max_held_bytes=4)
    known.feed(request())
    assert known.whole(request()) is None
    known.feed(request())
    assert known.phase is Phase.STOPPED
    assert known.refusal is not None
    assert known.refusal.status == 503


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"", b"a", b"abc", b"\r\n\r\n"]), st.sampled_from(["A: b", "C: d"])
        ),
        max_size=12,
    )
)
@settings(max_examples=50)
def test_known_or_not_requests_are_read_alike(sent: list[tuple[bytes, str]]) -> None:
    short, long = reader(), reader()
    for body, header in sent:
        data = request(body, header)
        known = short.whole(data)
        if known is None:
            short.feed(data)
            known = short.ready.pop()
        long.feed(data)
        due = long.ready.pop()
        assert (known.method, known.target, known.headers, known.body) == (
            due.method,
            due.target,
            due.headers,
            due.body,
        )


def test_where_heads_are_looked_at_each_one_is() -> None:
    held = Held()
    seen: list[bytes] = []
    guarded = RequestReader(Limits(), held, lambda _, target, __: seen.append(target))
    for _ in range(3):
        assert guarded.whole(request()) is None
        guarded.feed(request())
    assert seen == [b"/x"] * 3
    assert len(held.heads) == 0
