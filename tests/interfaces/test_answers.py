"""Answers that are read as the service's own, and those that are not."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest

from edgefleet.errors import UnavailableError
from edgefleet.interfaces.answers import BETWEEN, read_answer


class Answer(NamedTuple):
    content: bytes
    url: str = "https://registry.example/v1/models?sig=s3cr3t"


class Listed(msgspec.Struct):
    value: list[str]


def test_an_answer_is_read_as_a_value_of_its_type() -> None:
    assert read_answer(Answer(b'{"a": [1]}'), dict[str, Any]) == {"a": [1]}
    assert read_answer(Answer(b'{"value": ["a"], "more": 1}'), Listed) == Listed(["a"])
    assert read_answer(Answer(b"\xef\xbb\xbf[]"), list[str]) == []  # a mark of byte order in front


@pytest.mark.parametrize(
    "content",
    [
        b"<p>sign in</p>",
        b"",
        b"[]",
        b"null",
        b'{"error": 1}',
        b"\xff",
        b'{"value":' + b"[" * 100_000,
    ],
    ids=["page", "empty", "list", "null", "another", "no text", "deep"],
)
def test_what_no_service_answers_is_told_with_whom_was_asked(content: bytes) -> None:
    with pytest.raises(UnavailableError, match=r"registry\.example answered") as caught:
        read_answer(Answer(content), Listed)
    assert caught.value.cure == BETWEEN
    assert "s3cr3t" not in str(caught.value)
