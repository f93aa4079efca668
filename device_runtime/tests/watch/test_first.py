"""What looks first: in order, one thread at a time, and before all else that the watch does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from device_runtime.tests.watch.seeing import release
from edgefleet.protocol.event import HealthEvent, Reading
from edgefleet.protocol.policy import AlarmRule
from edgefleet.protocol.release import Release
from edgefleet_runtime.serve.table import ServedModel
from edgefleet_runtime.watch.first import FEW, LONG_S, PATIENCE, First, Item
from edgefleet_runtime.watch.seen import Began, Followed, Heard, Seen, Taken

RULES = (
    AlarmRule(name="hot", model="digits", when="score > 0.9"),
    AlarmRule(name="shakes", stream="motor", when="values.v > 1.0"),
)


class Fake(ServedModel):
    """A model's name, which is all that is looked at."""

    def __init__(self, name: str) -> None:
        self.name, self.version, self.bundle, self.variant = name, "1", "b", "v"


class Bench:
    """What looks first with a part that remembers, and a processor's time that a test sets."""

    def __init__(self) -> None:
        self.looked: list[tuple[str, float]] = []
        self.told: list[HealthEvent] = []
        self.spent = 0.0
        self.takes_s = 0.0
        self.meanwhile: list[Callable[[], object]] = []
        self.first = First(
            self, self.told.append, drifted=lambda model: (f"{model}!",), spent=lambda: self.spent
        )
        self.first.come(Followed(release(alarms=RULES)), 0)
        self.first.judge()

    def follow(self, release: Release) -> None:
        self.looked.append(("follow", len(release.telemetry.alarms)))

    def see(self, seen: Seen) -> None:
        self.spent += self.takes_s
        self.looked.append(("see", seen.run_us))
        assert (seen.answers[0].name, seen.drifted) == ("y", ("digits!",))
        while self.meanwhile:
            self.meanwhile.pop(0)()

    def see_compared(self, seen: Seen) -> None:
        self.looked.append(("see_compared", seen.run_us))

    def hear(self, heard: Heard) -> None:
        self.looked.append(("hear", heard.at))

    def turn(self, at: float, time: float, between: Callable[[], object]) -> None:
        self.looked.append(("turn", at))
        while self.meanwhile:
            self.meanwhile.pop(0)()
        between()
        self.looked.append(("turned", at))

    def ask(self, number: float, *, model: str = "digits", disagrees: bool | None = None) -> None:
        outputs = {"y": np.ones((1, 4), np.float32)}
        taken = Taken(Fake(model), {}, outputs, number, 0.0, number, True, disagrees)
        self.first.come(taken, 10)

    def hear_of(self, stream: str, at: float) -> None:
        self.first.come(Heard(Reading(stream=stream, values={"v": 2.0}), 0.0, at), 5)

    def waiting(self) -> list[Item | Taken]:
        found = []
        while (entry := self.first.take()) is not None:
            found.append(entry[0])
        return found


def test_what_comes_is_judged_in_order_and_then_waits_in_order() -> None:
    bench = Bench()
    bench.ask(1)
    bench.hear_of("motor", 2)
    bench.ask(3, disagrees=True)
    assert bench.first.judge_few()
    assert bench.looked[1:] == [("see", 1), ("hear", 2), ("see_compared", 3)]
    assert [type(item) for item in bench.waiting()] == [Followed, Taken, Heard, Taken]


def test_nothing_is_judged_that_has_no_alarm() -> None:
    bench = Bench()
    bench.ask(1, model="other")
    bench.hear_of("weather", 2)
    bench.first.judge()
    assert bench.looked == [("follow", 2)]
    assert [type(item) for item in bench.waiting()] == [Followed, Taken, Heard]


def test_what_comes_while_another_judges_is_left_to_that_one() -> None:
    bench = Bench()

    def another_comes() -> None:
        bench.ask(2)
        assert bench.first.judge_few()
        assert bench.looked[-1] == ("see", 1), "it neither waits nor judges beside the other"

    bench.meanwhile = [another_comes]
    bench.ask(1)
    assert bench.first.judge_few()
    assert bench.looked[1:] == [("see", 1), ("see", 2)]


def test_serving_judges_a_few_and_leaves_the_rest() -> None:
    bench = Bench()
    for number in range(FEW + 2):
        bench.ask(number)
    assert not bench.first.judge_few()
    assert len(bench.looked) == 1 + FEW
    bench.first.judge()
    assert [at for _, at in bench.looked[1:]] == list(range(FEW + 2))


def test_serving_leaves_what_proved_to_take_long_until_it_is_quick_again() -> None:
    bench = Bench()
    bench.takes_s = 2 * LONG_S
    taken = 0
    while bench.first.judge_few():
        bench.ask(taken)
        taken += 1
    assert taken == PATIENCE // 2 + 1
    assert len(bench.looked) == taken, "the last one waits"
    bench.hear_of("motor", 9)
    assert not bench.first.judge_few(), "and so does what came behind it"
    bench.takes_s = 0.0
    bench.first.judge()
    assert bench.looked[-2:] == [("see", taken - 1), ("hear", 9)]
    bench.ask(10)
    assert bench.first.judge_few()
    assert bench.looked[-1] == ("see", 10)


def test_serving_follows_no_release() -> None:
    bench = Bench()
    bench.first.come(Followed(release(alarms=RULES[:1])), 0)
    bench.ask(1)
    assert not bench.first.judge_few()
    assert bench.looked == [("follow", 2)]
    bench.first.judge()
    assert bench.looked[1:] == [("follow", 1), ("see", 1)]


def test_others_learn_of_an_alarm_before_they_see_the_request_that_raised_it() -> None:
    bench = Bench()
    bench.meanwhile = [lambda: bench.first.began("hot", "digits", 1.5)]
    bench.ask(1)
    bench.first.judge()
    _, began, request = bench.waiting()
    assert began == Began("hot", "digits", 1.5)
    assert isinstance(request, Taken)


def test_what_comes_in_a_turn_is_judged_within_it() -> None:
    bench = Bench()
    bench.meanwhile = [lambda: bench.ask(7)]
    bench.first.turn(1.0, 0.0)
    assert bench.looked[1:] == [("turn", 1.0), ("see", 7), ("turned", 1.0)]


def test_a_part_that_raises_is_told_of_once_a_release_and_what_it_saw_still_waits() -> None:
    bench = Bench()

    def fail() -> None:
        raise ValueError("no luck")

    for number in range(2):
        bench.meanwhile = [fail]
        bench.ask(number)
        bench.first.judge()
    assert bench.first.failures == 2
    assert [event.message for event in bench.told] == ["Bench failed: ValueError: no luck"]
    assert len(bench.waiting()) == 3
