from __future__ import annotations

from collections.abc import Callable

import pytest

from device_runtime.tests.support import Clock
from device_runtime.tests.sync.rig import Later
from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    CancelledError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.retry import FIRST_S, LONGEST_ASKED_S, LONGEST_S
from edgefleet_runtime.sync.lane import Lane, Stride, Why, in_thread


class Bench:
    def __init__(self) -> None:
        self.clock, self.later, self.moved = Clock(), Later(), 0
        self.stride = Stride(100, 1000)
        self.lane = Lane(
            "test", self.stride, clock=self.clock, start=self.later, moved=self._has_moved
        )

    def _has_moved(self) -> None:
        self.moved += 1

    def work(self, error: Exception | None = None, *, progress: bool = False) -> bool:
        def work() -> None:
            if error is not None:
                raise error

        self.lane.begin(work)
        self.later.run()
        return self.lane.settle(progress=progress)

    def pause_s(self) -> float:
        """After how many seconds the lane is free again, in steps of one."""
        seconds = 0
        while not self.lane.free:
            self.clock.now += 1
            seconds += 1
            assert seconds < 10_000
        return seconds


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_work_is_one_piece_after_the_other(bench: Bench) -> None:
    bench.lane.begin(lambda: None)
    assert bench.lane.busy
    assert not bench.lane.free
    assert not bench.lane.settle()
    bench.later.run()
    assert bench.moved == 1
    assert bench.lane.settle()
    assert bench.lane.free


def test_what_ended_is_told_once(bench: Bench) -> None:
    assert bench.work()
    assert not bench.lane.settle()


@pytest.mark.parametrize(
    "error,why",
    [
        (UnavailableError("away"), "link"),
        (ThrottledError("busy"), "link"),
        (AccessDeniedError("no"), "access"),
        (AccessExpiredError("ended"), "access"),
        (OSError("disk"), "link"),
        (RuntimeError("the channel's own trouble"), "link"),
    ],
)
def test_a_failure_waits_longer_each_time_and_says_why(
    bench: Bench, error: Exception, why: Why
) -> None:
    assert not bench.work(error)
    assert bench.lane.why == why
    first = bench.pause_s()
    assert first <= FIRST_S
    pauses = [bench.work(error) or bench.pause_s() for _ in range(12)]
    assert LONGEST_S / 2 <= pauses[-1] <= LONGEST_S


def test_a_success_forgets_all_failures(bench: Bench) -> None:
    bench.work(UnavailableError("away"))
    bench.pause_s()
    assert bench.work()
    assert (bench.lane.why, bench.lane.free) == (None, True)


def test_progress_before_a_failure_makes_the_next_pause_short(bench: Bench) -> None:
    for _ in range(12):
        bench.work(UnavailableError("away"))
        bench.pause_s()
    bench.work(UnavailableError("away"), progress=True)
    assert bench.pause_s() <= FIRST_S


@pytest.mark.parametrize("asked,least,most", [(60.0, 60, 60), (1e9, LONGEST_ASKED_S, 1e9)])
def test_who_asks_for_a_pause_gets_it_within_bounds(
    bench: Bench, asked: float, least: float, most: float
) -> None:
    error = ThrottledError("busy")
    error.retry_after_s = asked
    bench.work(error)
    assert least <= bench.pause_s() <= min(most, LONGEST_ASKED_S)


def test_what_we_broke_off_ourselves_is_no_failure(bench: Bench) -> None:
    assert not bench.work(CancelledError("stop"))
    assert (bench.lane.why, bench.lane.free) == (None, True)


def test_haste_forgets_the_pause(bench: Bench) -> None:
    bench.work(UnavailableError("away"))
    assert not bench.lane.free
    bench.lane.hasten()
    assert bench.lane.free


def test_twice_as_much_goes_after_a_success_and_half_after_a_failure(bench: Bench) -> None:
    seen = []
    for error in (None, None, None, None, UnavailableError("away"), UnavailableError("away")):
        bench.work(error)
        bench.pause_s()
        seen.append(bench.stride.bytes)
    assert seen == [200, 400, 800, 1000, 500, 250]
    for _ in range(5):
        bench.work(UnavailableError("away"))
        bench.pause_s()
    assert bench.stride.bytes == 100


def test_a_stride_goes_by_a_limit_that_changes() -> None:
    stride = Stride(100, 1000)
    stride.most = 50
    assert stride.bytes == 50


def test_a_thread_of_its_own_does_the_work() -> None:
    import threading

    names: list[str] = []
    work: Callable[[], None] = lambda: names.append(threading.current_thread().name)  # noqa: E731
    in_thread("sync-test", work)
    assert eventually(lambda: names) == ["sync-test"]


def test_work_for_which_there_is_no_thread_is_tried_again(bench: Bench) -> None:
    def refuse(name: str, work: Callable[[], None]) -> None:
        raise RuntimeError(f"can't start new thread {name} for {work}")

    lane = Lane(
        "test", bench.stride, clock=bench.clock, start=refuse, moved=lambda: pytest.fail("it ran")
    )
    lane.begin(lambda: None)
    assert lane.ended
    assert not lane.settle()
    assert (lane.busy, lane.free, lane.why) == (False, False, "link")
    bench.clock.now += FIRST_S
    assert lane.free
