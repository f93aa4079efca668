from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.support import Clock
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.policy import Span
from edgefleet_runtime.sync.when import LOOK_S, Metered, in_span

MINUTES = st.integers(0, 24 * 60 - 1)


def span(start: int, end: int) -> Span:
    return Span(start=f"{start // 60:02}:{start % 60:02}", end=f"{end // 60:02}:{end % 60:02}")


def at(clock: str, day: str = "2026-11-21") -> float:
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "clock,held",
    [
        ("01:59:59", False),
        ("02:00:00", True),
        ("03:59:59.9", True),
        ("04:00:00", False),
        ("23:30:00", True),
        ("00:00:00", True),
        ("00:29:59", True),
        ("00:30:00", False),
    ],
)
def test_a_span_holds_from_its_start_until_its_end_and_over_midnight(
    clock: str, *, held: bool
) -> None:
    spans = (Span(start="02:00", end="04:00"), Span(start="23:30", end="00:30"))
    assert in_span(spans, at(clock)) is held


def test_without_spans_any_time_will_do() -> None:
    assert in_span((), at("13:00:00"))


def test_a_span_that_ends_when_it_starts_is_the_whole_day() -> None:
    spans = (Span(start="06:00", end="06:00"),)
    assert in_span(spans, at("05:59:59"))
    assert in_span(spans, at("06:00:00"))


@pytest.mark.parametrize("day", ["1970-01-01", "2000-02-29", "2099-12-31"])
def test_a_clock_that_jumped_years_asks_for_the_time_of_day_alone(day: str) -> None:
    spans = (Span(start="02:00", end="04:00"),)
    assert in_span(spans, at("03:00:00", day))
    assert not in_span(spans, at("05:00:00", day))


def test_a_clock_before_1970_has_a_time_of_day_too() -> None:
    assert in_span((Span(start="23:00", end="23:59"),), -1800.0)


@given(MINUTES, MINUTES, st.integers(0, 24 * 60 - 1))
def test_a_span_and_the_one_from_its_end_to_its_start_share_no_moment(
    start: int, end: int, minute: int
) -> None:
    now_s = at("00:00:00") + minute * 60
    there, back = (in_span((one,), now_s) for one in (span(start, end), span(end, start)))
    assert (there and back) if start == end else (there != back)


# ----------------------------------------------------------------------------------------- metered


@pytest.mark.parametrize("says,metered", [("yes", True), ("no", False)])
def test_an_option_says_whether_the_link_is_metered(says: str, *, metered: bool) -> None:
    assert Metered(says).now() is metered


@pytest.mark.parametrize(
    "content,metered",
    [
        (b"no\n", False),
        (b" No ", False),
        (b"0", False),
        (b"false", False),
        (b"yes\n", True),
        (b"1", True),
        (b"", True),
        (b"perhaps", True),
        (b"\xff\xfe", True),
        (b"no" + b" " * 100, False),
    ],
)
def test_a_file_says_whether_the_link_is_metered_and_what_makes_no_sense_means_yes(
    tmp_path: Path, content: bytes, *, metered: bool
) -> None:
    path = tmp_path / "metered"
    path.write_bytes(content)
    assert Metered(str(path)).now() is metered


def test_a_file_that_is_missing_or_a_folder_means_yes(tmp_path: Path) -> None:
    assert Metered(str(tmp_path / "missing")).now()
    assert Metered(str(tmp_path)).now()


def test_a_file_may_change_and_is_looked_at_once_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "metered", Clock()
    path.write_text("no")
    metered = Metered(str(path), clock)
    assert not metered.now()
    path.write_text("yes")
    assert not metered.now()
    clock.now += LOOK_S
    assert metered.now()


def test_nothing_that_says_it_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="metered"):
        Metered("")
