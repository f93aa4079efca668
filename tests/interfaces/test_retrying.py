"""Waits between tries: they grow to a bound, spread, and keep to what a service asks for."""

from __future__ import annotations

import random

import pytest

from edgefleet.interfaces.retrying import Pauses

PAUSES = Pauses(first_s=0.5, most_s=4.0, longest_told_s=60.0)


@pytest.mark.parametrize("tries, bound", [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (50, 4.0)])
def test_waits_spread_below_a_bound_that_doubles(
    tries: int, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.75)
    assert PAUSES.backoff_s(tries) == bound * 0.75


def test_nobody_waits_shorter_than_a_service_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert PAUSES.next_s(1, 7.0) == 7.0
    assert PAUSES.next_s(4, 0.0) == 4.0
    assert PAUSES.next_s(4) == 4.0


def test_a_wait_beyond_the_longest_is_not_honoured() -> None:
    assert PAUSES.is_too_long(60.1)
    assert not PAUSES.is_too_long(60.0)
    assert not PAUSES.is_too_long(None)
