"""Waiting for a condition: what is given, what is ignored, what is told where it never holds."""

from __future__ import annotations

import os

import pytest

from edgefleet.testing.waiting import LONGEST_S, eventually, pause_after


def test_the_first_true_value_is_given() -> None:
    values = iter([0, None, 3, 4])
    assert eventually(lambda: next(values)) == 3


def test_what_never_holds_is_told_by_name() -> None:
    with pytest.raises(AssertionError, match="never became true: the lamp is on"):
        eventually(lambda: False, "the lamp is on", timeout_s=0)


def test_what_is_told_may_be_found_out_at_the_end() -> None:
    asked: list[int] = []

    def condition() -> bool:
        asked.append(1)
        return False

    with pytest.raises(AssertionError, match="asked 1 times"):
        eventually(condition, lambda: f"asked {len(asked)} times", timeout_s=0)


def test_only_errors_that_mean_not_yet_are_ignored() -> None:
    asked: list[str] = []

    def ask() -> str:
        asked.append("once")
        if len(asked) == 1:
            raise KeyError
        return "yes"

    assert eventually(ask, ignoring=KeyError) == "yes"
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 // 0, ignoring=KeyError)


def test_the_last_error_is_told_with_the_failure() -> None:
    with pytest.raises(AssertionError) as caught:
        eventually(lambda: os.environ["NOBODY_SET_THIS"], ignoring=KeyError, timeout_s=0)
    assert isinstance(caught.value.__cause__, KeyError)


def test_something_is_done_between_two_questions() -> None:
    done: list[str] = []
    assert eventually(lambda: len(done) == 3, meanwhile=lambda: done.append("once"), apart_s=0)


@pytest.mark.parametrize(
    "took_s, apart_s, pause_s",
    [(0.001, 0.01, 0.01), (0.05, 0.01, 0.15), (60.0, 0.01, LONGEST_S), (0.05, 2.0, 2.0)],
)
def test_what_takes_long_to_ask_is_asked_less_often(
    took_s: float, apart_s: float, pause_s: float
) -> None:
    assert pause_after(took_s, apart_s) == pytest.approx(pause_s)
