"""Alarms: so many of the last, spans, hysteresis, rate, keys."""

from __future__ import annotations

from typing import Any

import pytest

from device_runtime.tests.watch.hearing import asked, heard
from device_runtime.tests.watch.seeing import release
from edgefleet.protocol.event import Alarm, Event, HealthEvent
from edgefleet.protocol.policy import Action, AlarmRule
from edgefleet_runtime.watch.alarms import AT_ONCE, Alarms
from edgefleet_runtime.watch.spans import BUCKETS


class Bench:
    """Alarms by rules, and what they do."""

    def __init__(self, *rules: AlarmRule, **more: Any) -> None:
        self.log: list[tuple[str, Event]] = []
        self.told: list[HealthEvent] = []
        self.began: list[tuple[str, str | None]] = []
        self.alarms = Alarms(
            lambda rule, event: self.log.append((f"act {rule.name}", event)),
            lambda event: self.log.append(("keep", event)),
            self.told.append,
            began=lambda rule, model: self.began.append((rule, model)),
            **more,
        )
        self.alarms.follow(release(alarms=rules))

    @property
    def events(self) -> list[Alarm]:
        found = [event.payload() for what, event in self.log if what == "keep"]
        return [each for each in found if isinstance(each, Alarm)]

    def steps(self) -> list[tuple[str, bool]]:
        return [(alarm.key, alarm.ended) for alarm in self.events]

    def feed(self, *scores: float, step: float = 1.0, start: float = 0.0) -> list[int]:
        """Requests with these scores; returns after how many an alarm began or ended."""
        changed = []
        for number, score in enumerate(scores, start=1):
            before = len(self.events)
            self.alarms.see(asked(score, start + number * step))
            if len(self.events) > before:
                changed.append(number)
        return changed


def rule(**fields: Any) -> AlarmRule:
    return AlarmRule(**{"name": "scratch", "model": "digits", "when": "score > 0.9", **fields})


def shakes(**fields: Any) -> AlarmRule:
    given = {"name": "shakes", "stream": "motor", "when": "mean.v > 4.0", "over_s": 2.0}
    return AlarmRule(**{**given, **fields})


def test_alarm_begins_and_ends_with_its_condition() -> None:
    bench = Bench(rule())
    assert bench.feed(0.5, 0.95, 0.96, 0.5, 0.5) == [2, 4]
    begun, ended = bench.events
    assert (begun.rule, begun.model, begun.ended, begun.severity) == (
        *("scratch", "digits", False),
        "warning",
    )
    assert (begun.values["score"], begun.values["top"]) == (0.95, 1.0)
    assert ended.ended
    assert ended.values["score"] == 0.5


@pytest.mark.parametrize(
    "scores, begins",
    [
        ((0.95, 0.95, 0.95), [3]),
        ((0.95, 0.1, 0.95, 0.1, 0.95), [5]),
        ((0.95, 0.1, 0.1, 0.95, 0.1, 0.95, 0.1), []),
        ((0.95, 0.95, 0.1, 0.1, 0.1, 0.95, 0.1, 0.95), []),
        ((0.1, 0.1, 0.95, 0.95, 0.1, 0.95), [6]),
    ],
)
def test_three_of_five(scores: tuple[float, ...], begins: list[int]) -> None:
    bench = Bench(rule(needs=3, within=5, clear="score < 0.0"))
    assert bench.feed(*scores) == begins


def test_a_rule_about_a_shadow_looks_at_what_a_shadow_has_answered() -> None:
    bench = Bench(rule(when="disagrees && score > 0.9"), rule(name="sure"))
    bench.alarms.see(asked(0.95, 1.0))
    assert [alarm.rule for alarm in bench.events] == ["sure"]
    for at, disagrees in ((2.0, False), (3.0, True), (4.0, False)):
        bench.alarms.see_compared(asked(0.95, at)._replace(disagrees=disagrees))
    assert [(alarm.rule, alarm.ended) for alarm in bench.events[1:]] == [
        ("scratch", False),
        ("scratch", True),
    ]
    assert bench.began == [("sure", "digits"), ("scratch", None)]


def test_an_end_may_be_about_a_shadow_too() -> None:
    bench = Bench(rule(clear="!disagrees"))
    bench.alarms.see(asked(0.95, 1.0))
    for at, disagrees in ((2.0, True), (3.0, False)):
        bench.alarms.see_compared(asked(0.95, at)._replace(disagrees=disagrees))
    assert bench.steps() == [("", False), ("", True)]


def test_hysteresis_ends_only_where_the_end_s_own_condition_holds_often_enough() -> None:
    bench = Bench(rule(clear="score < 0.5", clear_after=2))
    assert bench.feed(0.95, 0.7, 0.4, 0.7, 0.4, 0.4) == [1, 6]


def test_alarm_begins_at_most_once_in_its_time() -> None:
    bench = Bench(rule(every_s=10.0))
    changed = bench.feed(*[0.95, 0.1] * 7)
    assert changed == [1, 2, 11, 12]


def test_alarm_that_was_held_back_begins_when_its_time_has_passed() -> None:
    bench = Bench(rule(every_s=10.0))
    assert bench.feed(0.95, 0.1, *[0.95] * 10) == [1, 2, 11]


def test_every_key_of_a_stream_has_an_alarm_of_its_own() -> None:
    bench = Bench(AlarmRule(name="hot", stream="motor", when="values.v > 1.0", needs=2, within=2))
    for key, value in ("a", 2.0), ("b", 2.0), ("a", 2.0), ("b", 0.0), ("a", 0.0), ("b", 2.0):
        bench.alarms.hear(heard(value, 0.0, key=key))
    assert bench.steps() == [("a", False), ("a", True)]


def test_rate_is_each_key_s_own() -> None:
    bench = Bench(AlarmRule(name="hot", stream="motor", when="values.v > 1.0", every_s=60.0))
    for key in "ab":
        for value in (2.0, 0.0, 2.0):
            bench.alarms.hear(heard(value, 1.0, key=key))
    assert bench.steps() == [("a", False), ("a", True), ("b", False), ("b", True)]


def test_mean_over_two_seconds() -> None:
    bench = Bench(shakes())
    begun_at = None
    for tenth in range(100):
        at = tenth / 10
        bench.alarms.hear(heard(1.0 if at < 5 else 7.0, at))
        if bench.events and begun_at is None:
            begun_at = at
    # Of 20 readings in 2 s, 11 of 7 and 9 of 1 have a mean of 4.3, 10 of each one of 4.
    assert begun_at == pytest.approx(6.0, abs=0.1 + 2 / BUCKETS)
    assert bench.events[0].values["mean.v"] == pytest.approx(4.3, abs=0.31)
    assert 20 <= bench.events[0].values["count"] <= 21  # type: ignore[operator]


def test_one_peak_does_not_raise_the_mean() -> None:
    bench = Bench(shakes())
    for tenth in range(100):
        bench.alarms.hear(heard(30.0 if tenth == 50 else 1.0, tenth / 10))
    assert bench.events == []


def test_span_is_looked_at_only_when_it_has_passed_once() -> None:
    bench = Bench(shakes())
    for tenth in range(20):
        bench.alarms.hear(heard(9.0, tenth / 10))
    assert bench.events == []
    bench.alarms.hear(heard(9.0, 2.0))
    assert bench.steps() == [("", False)]


def test_extremes_last_and_count_of_a_span() -> None:
    when = "least.v == 1.0 && most.v == 3.0 && last.v == 2.0 && count == 3"
    bench = Bench(shakes(when=when, over_s=10.0))
    for at, value in (0.0, 9.0), (4.0, 1.0), (8.0, 3.0), (11.0, 2.0):
        bench.alarms.hear(heard(value, at))
    assert bench.steps() == [("", False)]


def test_stream_that_falls_silent_raises_an_alarm_by_the_clock_alone() -> None:
    bench = Bench(shakes(name="silent", when="count == 0", over_s=5.0))
    bench.alarms.hear(heard(1.0, 0.0, key="m1"))
    bench.alarms.turn(4.0, 0.0)
    assert bench.events == []
    bench.alarms.turn(6.0, 0.0)
    bench.alarms.hear(heard(1.0, 7.0, key="m1"))
    assert bench.steps() == [("m1", False), ("m1", True)]


def test_a_turn_survives_what_is_looked_at_in_between() -> None:
    bench = Bench(shakes(name="silent", when="count == 0", over_s=5.0))
    for number in range(2 * AT_ONCE):
        bench.alarms.hear(heard(1.0, 0.0, key=f"m{number}"))
    pauses: list[int] = []

    def between() -> None:
        pauses.append(len(bench.events))
        bench.alarms.hear(heard(1.0, 6.0, key="new"))
        bench.alarms.hear(heard(1.0, 6.0, key="m1"))
        if len(pauses) == 2:
            bench.alarms.follow(release(alarms=()))

    bench.alarms.turn(6.0, 0.0, between)
    assert pauses == [0, AT_ONCE - 1]
    begun = [key for key, ended in bench.steps() if not ended]
    assert begun == [f"m{number}" for number in range(AT_ONCE) if number != 1]
    assert sorted(begun) == sorted(key for key, ended in bench.steps() if ended)


def test_span_over_predictions() -> None:
    bench = Bench(rule(when="mean.score < 0.5 && most['values[0]'] == 0.5", over_s=3.0))
    assert bench.feed(0.9, 0.2, 0.2, 0.2, 0.2) == [4]


def test_action_is_begun_before_the_event_is_kept() -> None:
    bench = Bench(rule(actions=(Action(kind="run", target="stop"),)))
    bench.feed(0.95, 0.1)
    assert [what for what, _ in bench.log] == ["act scratch", "keep", "keep"]
    assert bench.log[0][1] is bench.log[1][1]


def test_who_wants_to_know_of_a_beginning_is_told_once() -> None:
    bench = Bench(rule())
    bench.feed(0.95, 0.95, 0.1)
    assert bench.began == [("scratch", "digits")]


def test_message_is_filled_in() -> None:
    bench = Bench(rule(message="{rule}: {score} of {top} in {model}, {key}{nothing}"))
    bench.feed(0.95)
    assert bench.events[0].message == "scratch: 0.95 of 1 in digits, None"


def test_message_of_a_span_names_its_figures() -> None:
    bench = Bench(shakes(message="{key}: {mean.v} over {count}"))
    for second in range(3):
        bench.alarms.hear(heard(5.0, float(second), key="m1"))
    assert bench.events[0].message == "m1: 5 over 2"


def test_message_without_a_text_is_the_rule() -> None:
    bench = Bench(AlarmRule(name="hot", stream="motor", when="values.v > 1.0"))
    bench.alarms.hear(heard(2.0, 0.0, key="m1"))
    assert bench.events[0].message == "hot of m1: values.v > 1.0"


def test_condition_that_fails_is_told_once_and_raises_nothing() -> None:
    bench = Bench(AlarmRule(name="hot", stream="motor", when="values.temperature > 1.0"))
    for _ in range(3):
        bench.alarms.hear(heard(2.0, 0.0))
    assert bench.events == []
    assert [(event.what, "alarms.hot.when" in event.message) for event in bench.told] == [
        ("rule-failed", True)
    ]


def test_more_keys_than_are_followed_end_the_oldest_and_that_is_told() -> None:
    bench = Bench(AlarmRule(name="hot", stream="motor", when="values.v > 1.0"), max_keys=2)
    for key in ("a", "b", "c"):
        bench.alarms.hear(heard(2.0, 0.0, key=key))
    assert bench.steps() == [("a", False), ("b", False), ("a", True), ("c", False)]
    assert [event.what for event in bench.told] == ["alarms-crowded"]


def test_spans_that_hold_too_much_let_go_of_the_oldest_keys() -> None:
    bench = Bench(shakes(), max_cells=10)
    for second in range(4):
        for key in "abc":
            bench.alarms.hear(heard({"v": 1.0, "w": 2.0}, second / 2, key=key))
    bench.alarms.turn(1.6, 0.0)
    assert [*bench.alarms._rules["shakes"].states] == ["c"]
    assert [event.what for event in bench.told] == ["alarms-crowded"]


def test_rule_that_goes_ends_its_alarm_and_one_that_stays_goes_on() -> None:
    bench = Bench(rule(), rule(name="other"))
    bench.feed(0.95)
    bench.alarms.follow(release(alarms=(rule(name="other"),)))
    assert [(alarm.rule, alarm.ended) for alarm in bench.events] == [
        ("scratch", False),
        ("other", False),
        ("scratch", True),
    ]
    assert bench.feed(0.95, 0.1) == [2]


def test_clock_beyond_all_dates_raises_the_alarm_all_the_same() -> None:
    bench = Bench(AlarmRule(name="hot", stream="motor", when="values.v > 1.0"))
    bench.alarms.hear(heard(2.0, 0.0, time=1e18))
    assert bench.steps() == [("", False)]


def test_memory_of_a_span_does_not_grow_with_what_comes() -> None:
    bench = Bench(shakes())
    for milli in range(20_000):
        bench.alarms.hear(heard(1.0, milli / 1000))
    (state,) = bench.alarms._rules["shakes"].states.values()
    assert state.span is not None
    assert len(state.span._parts) <= BUCKETS + 1
