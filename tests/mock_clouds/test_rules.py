"""Faults on demand, whoever the vendor is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.testing.cloud.rules import Rate, Rule, Rules

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Busy(Exception):  # noqa: N818 - an answer
    pass


def app(_: WSGIEnvironment, __: StartResponse) -> Iterable[bytes]:
    return [b"one", b"two"]


def start(_: str, __: list[tuple[str, str]], ___: Any = None, /) -> Callable[[bytes], object]:
    return bytes


def test_a_rule_counts_for_so_many_calls_after_so_many() -> None:
    rules = Rules(Busy)
    rule = Rule("shop.Buy", times=2, skip=1, fault=Busy())
    rules.add(rule)
    assert [rules.take("shop.Buy") is rule for _ in range(5)] == [False, True, True, False, False]


def test_a_rule_is_for_its_operation_and_caller() -> None:
    rules = Rules(Busy)
    rules.add(Rule("shop.Buy", caller="ada"))
    assert rules.take("shop.Sell", "ada") is None
    assert rules.take("shop.Buy", "grace") is None
    assert rules.take("shop.Buy", "ada lovelace") is not None


def test_rules_that_were_cleared_are_gone() -> None:
    rules = Rules(Busy)
    rules.add(Rule("shop.Buy", times=None))
    rules.limit(Rate("shop.Buy", per_second=0, burst=0))
    rules.clear()
    assert rules.take("shop.Buy") is None


def test_what_comes_too_often_is_throttled_as_the_vendor_does() -> None:
    now = [0.0]
    rules = Rules(Busy, clock=lambda: now[0])
    rules.limit(Rate("shop.Buy", per_second=2, burst=3))
    assert sum(rules.take("shop.Buy") is None for _ in range(5)) == 3
    now[0] += 0.5
    assert rules.take("shop.Buy") is None
    rule = rules.take("shop.Buy")
    assert rule is not None
    with pytest.raises(Busy):
        rule.answer({}, start, app)


def test_an_answer_is_cut_where_the_rule_says() -> None:
    parts = iter(Rule("shop.Buy", cut_answer_at=4).answer({}, start, app))
    assert (next(parts), next(parts)) == (b"one", b"t")
    with pytest.raises(ConnectionResetError):
        next(parts)


def test_an_answer_without_a_body_is_lost_as_well() -> None:
    with pytest.raises(ConnectionResetError):
        list(Rule("shop.Buy", cut_answer_at=0).answer({}, start, lambda _, __: []))
