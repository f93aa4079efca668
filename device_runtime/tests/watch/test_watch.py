"""The watch hands everything to each of its parts, and survives what they do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import X
from edgefleet.protocol.event import Alarm, EventData, HealthEvent, Reading
from edgefleet.protocol.policy import AlarmRule, CaptureRule, TelemetryPolicy
from edgefleet.protocol.release import Release
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.watch.seen import Heard, Seen, Taken
from edgefleet_runtime.watch.tap import ITEM_BYTES, Tap
from edgefleet_runtime.watch.watch import TELL_S, TURN_S, Watch

if TYPE_CHECKING:
    from pathlib import Path

ALARMS = TelemetryPolicy(alarms=(AlarmRule(name="hot", model="digits", when="score > 0.9"),))
CAPTURES = TelemetryPolicy(captures=(CaptureRule(name="odd", when="disagrees"),), inputs=("*/*",))


class Part:
    """Remembers what it was given; raises on request."""

    def __init__(self) -> None:
        self.saw: list[Seen] = []
        self.compared: list[Seen] = []
        self.heard: list[Heard] = []
        self.releases: list[Release] = []
        self.turns: list[float] = []
        self.closed = 0
        self.fails = False
        self.pieces = 0

    def follow(self, release: Release) -> None:
        self.releases.append(release)

    def see(self, seen: Seen) -> None:
        if self.fails:
            raise ValueError("no luck")
        self.saw.append(seen)

    def see_compared(self, seen: Seen) -> None:
        self.compared.append(seen)

    def hear(self, heard: Heard) -> None:
        self.heard.append(heard)

    def turn(self, at: float, time: float) -> None:
        self.turns.append(at)

    def go_on(self) -> bool:
        self.pieces = max(0, self.pieces - 1)
        return self.pieces > 0

    def close(self) -> None:
        self.closed += 1


class Bench:
    def __init__(self, root: Path, *, max_bytes: int = 1 << 20) -> None:
        self.rig = Rig(root)
        self.tap = Tap(self.rig.table, clock=self.rig.clock, max_bytes=max_bytes)
        self.first, self.second = Part(), Part()
        self.told: list[EventData] = []
        self.watch = Watch(
            self.tap,
            (self.first, self.second),
            tell=self.told.append,
            drifted=lambda model: (f"{model} moved",),
            clock=self.rig.clock,
        )
        self.rig.on_serve.append(self.watch.attend)

    def deploy(self, policy: TelemetryPolicy, version: str = "1") -> None:
        model = {"digits": self.rig.repository.fake(2)}
        self.rig.deploy(self.rig.repository.release(model, version=version, telemetry=policy))
        self.watch.follow(Release(models=(), telemetry=policy))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.deploy(ALARMS)
    return bench


def test_each_part_sees_everything_in_order(bench: Bench) -> None:
    for _ in range(70):
        bench.rig.infer()
    bench.tap.hear(Reading(stream="reefer", values={"t": 1.0}))
    bench.watch.work()
    for part in (bench.first, bench.second):
        assert len(part.saw) == 70
        assert [heard.reading.stream for heard in part.heard] == ["reefer"]
        assert [release.telemetry for release in part.releases] == [ALARMS]


def test_what_is_seen_has_its_answers_and_what_has_moved(bench: Bench) -> None:
    bench.rig.infer(x=X)
    bench.watch.work()
    (seen,) = bench.first.saw
    (answer,) = seen.answers
    assert (answer.name, answer.top, answer.score) == ("y", (3,), (8.0,))
    assert seen.drifted == ("digits moved",)


def test_a_part_that_raises_is_told_of_once_and_harms_no_other(bench: Bench) -> None:
    bench.first.fails = True
    for _ in range(3):
        bench.rig.infer()
    bench.watch.work()
    assert len(bench.second.saw) == 3
    assert bench.watch.failures == 3
    (told,) = bench.told
    assert isinstance(told, HealthEvent)
    assert (told.what, told.message) == ("watch-failed", "Part failed: ValueError: no luck")
    bench.first.fails = False
    bench.rig.infer()
    bench.watch.work()
    assert len(bench.first.saw) == 1, "and it goes on itself"


def test_each_part_has_a_turn_when_it_is_due(bench: Bench) -> None:
    bench.watch.work()
    bench.watch.work()
    assert bench.first.turns == [bench.rig.clock.now]
    bench.rig.clock.now += TURN_S
    bench.watch.work()
    assert bench.first.turns[1:] == [bench.rig.clock.now]


def test_what_found_no_room_is_told_at_most_once_a_minute(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=ITEM_BYTES + 100)
    bench.deploy(ALARMS)
    for _ in range(4):
        for _ in range(3):
            bench.rig.infer()
        bench.watch.work()
        bench.rig.clock.now += TELL_S / 3
    messages = [event.message for event in bench.told if isinstance(event, HealthEvent | Alarm)]
    assert messages == ["2 requests weren't looked at", "6 requests weren't looked at"]
    assert bench.watch.skipped == 8


def test_what_a_shadow_answered_goes_to_those_who_ask_for_it_alone(bench: Bench) -> None:
    bench.deploy(CAPTURES, version="2")
    (served,) = bench.rig.table
    bench.tap.compared(served, {"x": X}, {"y": 2 * X}, True)
    bench.watch.work()
    assert not bench.first.saw
    assert [seen.disagrees for seen in bench.first.compared] == [True]


def test_what_has_come_is_judged_before_a_part_sees_the_next_request(bench: Bench) -> None:
    log: list[str] = []
    first, part = bench.tap.first, bench.first

    def see(seen: Seen) -> None:
        log.append("sketched")
        if log.count("sketched") == 1:
            served = next(iter(bench.rig.table))
            more = Taken(served, {}, {"y": X}, 1.0, 0.0, 0.0, True, None)
            first.come(more, ITEM_BYTES)  # as serving leaves what takes long

    part.see = see  # type: ignore[method-assign]
    judge = first.judge

    def judged() -> None:
        if first._come:
            log.append("judged")
        judge()

    first.judge = judged  # type: ignore[method-assign]
    for _ in range(2):
        bench.rig.infer()
    bench.watch.work()
    assert log == ["judged", "sketched", "judged", "sketched"]


def test_what_can_wait_is_done_in_pieces_between_requests(bench: Bench) -> None:
    bench.first.pieces = 2
    bench.rig.infer()
    bench.watch.work()
    assert (bench.first.pieces, len(bench.first.saw)) == (1, 1)
    bench.rig.infer()
    bench.watch.work()
    assert (bench.first.pieces, len(bench.first.saw)) == (0, 2)


def test_the_thread_looks_without_being_asked_and_ends_in_order(bench: Bench) -> None:
    bench.watch.start()
    bench.rig.infer()
    eventually(lambda: bench.first.saw)
    bench.rig.infer()
    assert bench.watch.stop(90)
    assert len(bench.first.saw) == 2
    assert (bench.first.closed, bench.second.closed) == (1, 1)
