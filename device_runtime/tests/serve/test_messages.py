"""Answers and bodies by themselves."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import InvalidInputError, LimitExceededError, UnsupportedError
from edgefleet_runtime.serve.messages import Response, decompressed, refusal


@given(st.binary(max_size=500))
def test_every_encoding_gives_the_plain_body(plain: bytes) -> None:
    bare = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    forms = {
        "": plain,
        "identity": plain,
        "gzip": gzip.compress(plain),
        " X-GZip": gzip.compress(plain),
        "deflate": zlib.compress(plain),
        "Deflate": bare.compress(plain) + bare.flush(),
    }
    for encoding, body in forms.items():
        assert decompressed(body, encoding, max_bytes=500) == plain


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate"]))
def test_arbitrary_bytes_give_a_body_or_a_refusal(body: bytes, encoding: str) -> None:
    try:
        plain = decompressed(body, encoding, max_bytes=1000)
    except InvalidInputError:
        return
    assert len(plain) <= 1000


def test_a_bomb_is_refused_at_the_limit() -> None:
    with pytest.raises(LimitExceededError, match="1000 bytes"):
        decompressed(gzip.compress(b"\0" * 10_000_000), "gzip", max_bytes=1000)


def test_a_list_of_encodings_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="not known here"):
        decompressed(b"", "gzip, gzip", max_bytes=1000)


def test_an_answer_without_body_names_no_type() -> None:
    assert Response(204).head(keep_alive=True) == (
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
    )


def test_a_message_that_quotes_broken_text_is_still_an_answer() -> None:
    (body,) = refusal(400, "bad name '\ud800'").body
    assert bytes(body) == b'{"error":"bad name \'?\'"}'
