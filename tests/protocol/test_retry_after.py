"""``Retry-After``: what servers ask for is understood, and what they garble is no error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.protocol.retry_after import retry_after_s

THEN_S = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize("value, wait_s", [("7", 7.0), (" 120 ", 120.0), ("0", 0.0), ("1.5", 1.5)])
def test_a_number_is_seconds(value: str, wait_s: float) -> None:
    assert retry_after_s(value) == wait_s


@pytest.mark.parametrize(
    "value, wait_s",
    [
        ("Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2015 07:28:30 -0000", 30.0),
        ("Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
    ],
)
def test_a_date_is_the_time_until_then(value: str, wait_s: float) -> None:
    assert retry_after_s(value, now_s=THEN_S) == wait_s


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "-5",
        "nan",
        "inf",
        "1e3",
        "\u00b2",
        "\u0667",
        "7 7",
        "5\u00b2",
        f"Wed, 21 Oct {10**20} 07:28:30 GMT",
    ],
)
def test_what_is_neither_asks_for_nothing(value: str | None) -> None:
    assert retry_after_s(value) is None


@given(st.text())
def test_no_header_is_an_error(value: str) -> None:
    found = retry_after_s(value, now_s=THEN_S)
    assert found is None or found >= 0
