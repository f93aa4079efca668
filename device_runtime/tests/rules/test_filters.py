"""Filters: what becomes an event."""

from __future__ import annotations

import sys

import pytest

from device_runtime.tests.watch.hearing import heard, predicted
from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.policy import Filter, TelemetryPolicy, WindowRule
from edgefleet_runtime.rules.filters import Filters


def filters(*rules: Filter, windows: tuple[WindowRule, ...] = ()) -> Filters:
    told: list[HealthEvent] = []
    made = Filters(TelemetryPolicy(filters=rules, windows=windows), told.append)
    made.told = told  # type: ignore[attr-defined]
    return made


def test_without_filters_everything_passes() -> None:
    assert filters().passes(predicted(0.5))
    assert filters().hears(heard(1.0, 0.0).reading)


@pytest.mark.parametrize("score, passes", [(0.5, True), (0.95, False)])
def test_only_what_the_condition_holds_for_passes(score: float, passes: bool) -> None:  # noqa: FBT001
    assert filters(Filter(name="a", when="score < 0.9")).passes(predicted(score)) is passes


def test_filter_of_another_model_does_not_apply() -> None:
    made = filters(Filter(name="a", model="cats", when="false"))
    assert made.passes(predicted(0.5))
    assert not made.passes(predicted(0.5, model="cats"))


def test_filter_of_a_stream_leaves_predictions_alone() -> None:
    made = filters(Filter(name="a", stream="motor", when="values.v > 1.0"))
    assert made.passes(predicted(0.5))
    assert [made.hears(heard(v, 0.0).reading) for v in (0.5, 1.5)] == [False, True]


def test_filter_of_every_prediction_leaves_readings_alone() -> None:
    assert filters(Filter(name="a", when="false")).hears(heard(1.0, 0.0).reading)


def test_every_filter_that_applies_must_let_one_pass() -> None:
    made = filters(Filter(name="a", when="score > 0.2"), Filter(name="b", when="score < 0.8"))
    assert [made.passes(predicted(s)) for s in (0.1, 0.5, 0.9)] == [False, True, False]


def test_share_is_taken_evenly_of_what_the_condition_holds_for() -> None:
    made = filters(Filter(name="a", when="score < 0.9", fraction=0.25))
    passed = [made.passes(predicted(0.95 if n % 2 else 0.5)) for n in range(16)]
    assert [n for n, each in enumerate(passed) if each] == [6, 14]


def test_window_without_single_events_takes_what_it_reduces() -> None:
    rule = WindowRule(name="w", stream="motor", when="values.v < 9.0")
    made = filters(windows=(rule,))
    assert [made.hears(heard(v, 0.0).reading) for v in (1.0, 10.0)] == [False, True]


def test_window_that_keeps_single_events_takes_none() -> None:
    made = filters(windows=(WindowRule(name="w", model="digits", keep=True),))
    assert made.passes(predicted(0.5))


def test_condition_that_cannot_be_evaluated_is_told_once() -> None:
    told: list[HealthEvent] = []
    policy = TelemetryPolicy(filters=(Filter(name="sure", when="score > 0.9"),))
    made = Filters(policy, told.append)
    assert [made.passes(predicted(s)) for s in (None, None, 0.95)] == [False, False, True]
    assert [(event.what, "filters.sure" in event.message) for event in told] == [
        ("rule-failed", True)
    ]


def test_condition_that_cannot_be_read_is_told_and_never_holds() -> None:
    told: list[HealthEvent] = []
    made = Filters(TelemetryPolicy(filters=(Filter(name="a", when="score >"),)), told.append)
    assert not made.passes(predicted(0.5))
    assert [event.what for event in told] == ["rule-failed"]
    assert "1:8" in told[0].message


def test_policy_without_conditions_loads_no_library() -> None:
    import subprocess

    code = (
        "import sys\n"
        "from edgefleet.protocol.policy import Filter, TelemetryPolicy\n"
        "from edgefleet_runtime.rules.filters import Filters\n"
        "from edgefleet_runtime.watch import alarms, windows\n"
        "Filters(TelemetryPolicy(filters=(Filter(name='a', fraction=0.5),)), print)\n"
        "assert not {'cel', 'cel.cel', 'datasketches', 'paho'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
