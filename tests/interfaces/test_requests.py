"""What a device answers to an operator's request, whatever it is."""

from __future__ import annotations

import pytest

from edgefleet.errors import DocumentError, UnavailableError
from edgefleet.interfaces.abilities import Reply
from edgefleet.interfaces.requests import reply_of


def test_an_answer_is_read() -> None:
    found = reply_of("press-17", b'{"status": 200, "headers": {"a": "b"}, "body": "aGk="}')
    assert found == Reply(200, {"a": "b"}, b"hi")


def test_why_a_device_can_not_answer_is_told() -> None:
    with pytest.raises(UnavailableError, match="'press-17' can't answer: no server"):
        reply_of("press-17", b'{"error": "no server"}')


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"\xff", b"[" * 5000, b'{"status": "x"}', b'{"body": "!"}', b'{"headers": 1}'],
)
def test_an_answer_that_makes_no_sense_is_told_by_its_devices_name(answer: bytes) -> None:
    with pytest.raises(DocumentError, match="press-17"):
        reply_of("press-17", answer)
