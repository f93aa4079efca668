"""Which samples a strategy takes."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta

import pytest

from edgefleet.analysis.dataset_choice import choose, distinct
from edgefleet.analysis.dataset_records import STRATEGIES, Choice
from edgefleet.analysis.dataset_rows import Row
from edgefleet.protocol.digest import digest_of
from tests.analysis.field import NOON


def row(number: int, *, predicted: str = "3", score: float | None = 0.9, label: str = "") -> Row:
    digest = digest_of(str(number).encode())
    return Row(
        sample=digest,
        id=str(number),
        time=NOON + timedelta(seconds=number),
        device="cam-1",
        model="digits",
        version="1",
        predicted=predicted,
        score=score,
        label=label,
        inputs={"x": digest},
    )


def numbers(rows: list[Row]) -> list[int]:
    return [int(one.id) for one in rows]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("balance", [False, True])
def test_the_order_in_which_samples_come_changes_nothing(strategy: str, *, balance: bool) -> None:
    rows = [row(n, predicted=str(n % 3), score=(n * 37 % 100) / 100) for n in range(50)]
    choice = Choice(strategy=strategy, max=9, balance=balance)  # type: ignore[arg-type]
    first = choose(distinct(rows), choice, drifted=lambda one: int(one.id) % 2 == 0)
    random.Random(1).shuffle(rows)
    again = choose(distinct(rows), choice, drifted=lambda one: int(one.id) % 2 == 0)
    assert first == again
    assert len(first) == 9


def test_all_takes_the_newest_first() -> None:
    assert numbers(choose([row(n) for n in range(5)], Choice(max=2))) == [3, 4]


def test_hard_examples_are_those_the_model_was_least_sure_of() -> None:
    rows = [row(n, score=n / 10) for n in range(10)]
    assert numbers(choose(rows, Choice(strategy="hard-examples", max=3))) == [0, 1, 2]
    assert numbers(choose(rows, Choice(strategy="hard-examples"))) == [0, 1, 2, 3, 4, 5]


def test_what_has_no_score_is_no_hard_example() -> None:
    rows = [row(0, score=None), row(1, score=0.8)]
    assert numbers(choose(rows, Choice(strategy="hard-examples", max=2))) == [1]


def test_rare_takes_the_classes_with_fewest_samples() -> None:
    rows = [row(n, predicted="often") for n in range(20)] + [row(20, predicted="seldom")]
    assert numbers(choose(rows, Choice(strategy="rare"))) == [20]
    assert 20 in numbers(choose(rows, Choice(strategy="rare", max=3)))


def test_drifted_takes_what_came_while_a_device_said_so() -> None:
    rows = [row(n) for n in range(6)]
    chosen = choose(rows, Choice(strategy="drifted"), drifted=lambda one: int(one.id) >= 4)
    assert numbers(chosen) == [4, 5]


def test_uniform_takes_by_chance_what_it_always_takes() -> None:
    few = choose([row(n) for n in range(100)], Choice(strategy="uniform", max=10))
    more = choose([row(n) for n in range(100)], Choice(strategy="uniform", max=20))
    assert set(numbers(few)) < set(numbers(more))
    assert numbers(few) != list(range(90, 100))


def test_balance_takes_as_many_of_each_class_as_the_smallest_has() -> None:
    rows = [row(n, predicted="a" if n < 20 else "b") for n in range(24)]
    chosen = choose(rows, Choice(balance=True))
    assert Counter(one.predicted for one in chosen) == {"a": 4, "b": 4}


def test_balance_up_to_a_bound_takes_one_of_each_in_turn() -> None:
    rows = [row(n, predicted="a" if n < 20 else "b") for n in range(22)]
    chosen = choose(rows, Choice(balance=True, max=7))
    assert Counter(one.predicted for one in chosen) == {"a": 5, "b": 2}


def test_a_label_counts_before_what_the_model_said() -> None:
    rows = [row(n, predicted="a", label="b" if n < 3 else "") for n in range(9)]
    chosen = choose(rows, Choice(balance=True))
    assert Counter(one.known_class for one in chosen) == {"a": 3, "b": 3}


def test_what_the_first_capture_does_not_tell_a_later_one_may() -> None:
    first, later = row(1, predicted="", score=None), row(1, predicted="4", score=0.4)
    (held,) = distinct([later, first])
    assert (held.predicted, held.score, held.captured) == ("4", 0.4, 2)
