"""Windows: figures against numpy's, time that jumps, memory that stays bounded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.tests.watch.hearing import START, asked, heard
from device_runtime.tests.watch.seeing import release
from edgefleet.protocol.event import HealthEvent, Window
from edgefleet.protocol.policy import WindowRule
from edgefleet.protocol.sketch import K
from edgefleet_runtime.watch.reducing import EXACT, Series
from edgefleet_runtime.watch.windows import Windows


class Bench:
    """Windows by rules, and what they emit."""

    def __init__(self, *rules: WindowRule, **more: Any) -> None:
        self.emitted: list[Window] = []
        self.told: list[HealthEvent] = []
        self.windows = Windows(self.emitted.append, self.told.append, **more)
        self.windows.follow(release(windows=rules))

    def counts(self) -> list[tuple[str, float, int]]:
        return [(w.key, w.start.timestamp() - START, w.count) for w in self.emitted]


def rule(**fields: Any) -> WindowRule:
    return WindowRule(**{"name": "minutes", "stream": "motor", "size_s": 60.0, **fields})


def test_window_closes_when_its_span_has_passed() -> None:
    bench = Bench(rule())
    for at in (0.0, 20.0, 59.0):
        bench.windows.hear(heard(at, at))
    bench.windows.turn(59.5, START + 59.5)
    assert bench.emitted == []
    bench.windows.turn(60.0, START + 60.0)
    (window,) = bench.emitted
    assert (window.rule, window.stream, window.model, window.count) == ("minutes", "motor", None, 3)
    assert (window.start, window.end) == (
        datetime.fromtimestamp(START, UTC),
        datetime.fromtimestamp(START + 60, UTC),
    )
    assert window.values["v"].mean == pytest.approx(79 / 3)


def test_window_closes_by_the_next_reading_too() -> None:
    bench = Bench(rule())
    for at in (0.0, 61.0):
        bench.windows.hear(heard(1.0, at))
    assert bench.counts() == [("", 0.0, 1)]


def test_every_key_has_windows_of_its_own() -> None:
    bench = Bench(rule())
    for at in range(6):
        bench.windows.hear(heard(1.0, float(at), key="ab"[at % 2]))
    bench.windows.close()
    assert bench.counts() == [("a", 0.0, 3), ("b", 0.0, 3)]


def test_late_reading_is_in_a_window_of_its_own() -> None:
    bench = Bench(rule())
    bench.windows.hear(heard(1.0, 10.0))
    bench.windows.hear(heard(1.0, 70.0))
    bench.windows.hear(heard(5.0, 71.0, time=START + 59.0))
    bench.windows.close()
    assert bench.counts() == [("", 0.0, 1), ("", 60.0, 1), ("", 0.0, 1)]


def test_reading_that_is_a_little_late_is_in_the_window_that_is_open() -> None:
    bench = Bench(rule())
    bench.windows.hear(heard(1.0, 50.0))
    bench.windows.hear(heard(1.0, 55.0, time=START + 70.0))
    bench.windows.hear(heard(1.0, 56.0))
    bench.windows.close()
    assert sorted(bench.counts()) == [("", 0.0, 2), ("", 60.0, 1)]


@pytest.mark.parametrize("jump", [-30 * 365 * 86_400.0, 30 * 365 * 86_400.0, -START, 1e13, -1e13])
def test_clock_that_jumps_years_holds_no_window_open(jump: float) -> None:
    bench = Bench(rule())
    bench.windows.hear(heard(1.0, 1.0))
    for at in (2.0, 3.0):
        bench.windows.hear(heard(1.0, at, time=START + at + jump))
    bench.windows.turn(70.0, START + jump + 70.0)
    assert [window.count for window in bench.emitted] == [1, 2]


def test_clock_that_stands_still_holds_no_window_open() -> None:
    bench = Bench(rule())
    for at in (0.0, 61.0, 122.0):
        bench.windows.hear(heard(1.0, at, time=START))
    assert bench.counts() == [("", 0.0, 1), ("", 0.0, 1)]


def test_only_what_the_condition_holds_for_is_reduced() -> None:
    bench = Bench(rule(when="values.v > 1.0"))
    for value in (0.5, 1.5, 2.5):
        bench.windows.hear(heard(value, 1.0))
    bench.windows.close()
    assert bench.emitted[0].values["v"].least == 1.5


def test_null_and_absent_values_are_missing() -> None:
    bench = Bench(rule(values=("v", "w")))
    bench.windows.hear(heard({"v": 1.0, "x": 3.0}, 1.0))
    bench.windows.hear(heard({"v": None, "w": 2.0}, 2.0))
    bench.windows.close()
    values = bench.emitted[0].values
    assert {name: (a.count, a.missing) for name, a in values.items()} == {
        "v": (1, 1),
        "w": (1, 1),
    }


def test_value_that_never_came_is_told_as_missing() -> None:
    bench = Bench(rule(values=("w",)))
    bench.windows.hear(heard({"v": 1.0}, 1.0))
    bench.windows.close()
    window = bench.emitted[0].values["w"]
    assert (window.count, window.missing, window.mean, window.least) == (0, 1, None, None)


def test_predictions_are_reduced_to_score_run_time_and_values() -> None:
    bench = Bench(WindowRule(name="scores", model="digits"))
    for score in (0.5, 1.0):
        bench.windows.see(asked(score, 1.0))
    bench.windows.see(asked(1.0, 1.0, model="cats"))
    bench.windows.close()
    (window,) = bench.emitted
    assert {name: a.mean for name, a in window.values.items()} == {
        "latency_us": 310.0,
        "score": 0.75,
        "values[0]": 0.5,
        "values[1]": 0.25,
    }


def test_more_keys_than_fit_close_early_and_that_is_told_once() -> None:
    bench = Bench(rule(), max_series=3)
    for number in range(6):
        bench.windows.hear(heard(1.0, 1.0, key=f"k{number}"))
    assert [window.key for window in bench.emitted] == ["k0", "k1", "k2"]
    assert [event.what for event in bench.told] == ["windows-early"]


def test_key_that_is_heard_closes_after_one_that_is_not() -> None:
    bench = Bench(rule(), max_series=2)
    for key in "abac":
        bench.windows.hear(heard(1.0, 1.0, key=key))
    assert [window.key for window in bench.emitted] == ["b"]


def test_changed_rule_closes_its_windows_and_the_others_go_on() -> None:
    bench = Bench(rule(), rule(name="other"))
    bench.windows.hear(heard(1.0, 1.0))
    bench.windows.follow(release(windows=(rule(size_s=30.0), rule(name="other"))))
    assert [window.rule for window in bench.emitted] == ["minutes"]
    bench.windows.hear(heard(1.0, 2.0))
    bench.windows.close()
    assert sorted((window.rule, window.count) for window in bench.emitted) == [
        ("minutes", 1),
        ("minutes", 1),
        ("other", 2),
    ]


FINITE = st.floats(-1e6, 1e6)
RANKS = (0.0, 0.25, 0.5, 0.9, 1.0)


@settings(max_examples=60)
@given(st.lists(FINITE, min_size=1, max_size=200))
def test_figures_are_numpy_s(values: list[float]) -> None:
    edges = (-10.0, 0.0, 10.0)
    bench = Bench(rule(quantiles=RANKS, edges=edges))
    for value in values:
        bench.windows.hear(heard(value, 1.0))
    bench.windows.close()
    told = bench.emitted[0].values["v"]
    assert (told.count, told.least, told.most) == (len(values), min(values), max(values))
    assert told.mean == pytest.approx(float(np.mean(values)), rel=1e-9, abs=1e-6)
    wanted = np.quantile(values, RANKS, method="inverted_cdf").tolist()
    assert [told.quantiles[f"{rank:g}"] for rank in RANKS] == wanted
    bins = np.histogram(values, bins=[-np.inf, *edges, np.inf])[0].tolist()
    assert list(told.histogram) == bins


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from("ab")), max_size=60))
def test_every_reading_is_in_exactly_one_window_of_its_span(
    readings: list[tuple[int, str]],
) -> None:
    bench = Bench(rule())
    for number, (second, key) in enumerate(readings):
        bench.windows.hear(heard(1.0, float(number), key=key, time=START + second))
    bench.windows.close()
    seen: dict[tuple[str, float], int] = {}
    for key, start, count in bench.counts():
        seen[key, start] = seen.get((key, start), 0) + count
    wanted: dict[tuple[str, float], int] = {}
    for second, key in readings:
        place = (key, float(second // 60 * 60))
        wanted[place] = wanted.get(place, 0) + 1
    assert seen == wanted


def test_quantiles_of_many_numbers_come_from_a_sketch_within_its_error() -> None:
    values = np.random.default_rng(3).normal(size=EXACT * 5)
    series = Series((0.01, 0.5, 0.99))
    for value in values.tolist():
        series.add(value)
    assert series.kept == 0
    told = series.aggregate(len(values)).quantiles
    for rank in (0.01, 0.5, 0.99):
        at = told[f"{rank:g}"]
        assert at is not None
        seen = float((values <= at).mean())
        assert seen == pytest.approx(rank, abs=0.014)  # twice the error at 99 % confidence
    assert K == 400


def test_mean_of_numbers_too_large_to_add_is_none() -> None:
    series = Series()
    for value in (1.7e308, -1.7e308, 1.7e308):
        series.add(value)
    told = series.aggregate(3)
    assert told.mean is None or np.isfinite(told.mean)
    assert told.most == 1.7e308
