"""The tap copies what the policy wants looked at, and lets go what doesn't fit."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import X
from edgefleet.protocol.event import Reading
from edgefleet.protocol.policy import AlarmRule, CaptureRule, DriftPolicy, TelemetryPolicy
from edgefleet.protocol.release import Release
from edgefleet_runtime.watch.first import First
from edgefleet_runtime.watch.seen import Heard, Seen
from edgefleet_runtime.watch.tap import (
    ITEM_BYTES,
    MAX_FEATURES,
    MAX_ROW_VALUES,
    MAX_VALUES,
    Tap,
    looked_at,
)

ALARM = AlarmRule(name="hot", model="digits", when="score > 0.9")
ALARMS = TelemetryPolicy(alarms=(ALARM,))


class Bench:
    """A device that serves ``digits``, tapped."""

    def __init__(self, root: Path, **limits: int) -> None:
        self.rig = Rig(root)
        self.judged: list[Seen] = []
        self.spent = itertools.count()
        self.slow = False
        first = First(self, spent=lambda: next(self.spent) if self.slow else 0.0)
        self.tap = Tap(self.rig.table, first, clock=self.rig.clock, now=lambda: 5e8, **limits)
        self.rig.on_serve.append(self.tap.attend)

    def follow(self, release: Release) -> None:
        pass

    def see(self, seen: Seen) -> None:
        self.judged.append(seen)

    def see_compared(self, seen: Seen) -> None:
        self.judged.append(seen)

    def hear(self, heard: Heard) -> None:
        pass

    def turn(self, at: float, time: float, between: Callable[[], object]) -> None:
        pass

    def deploy(self, policy: TelemetryPolicy, factor: float = 2, version: str = "1") -> None:
        model = {"digits": self.rig.repository.fake(factor)}
        self.rig.deploy(self.rig.repository.release(model, version=version, telemetry=policy))
        self.tap.follow(Release(models=(), telemetry=policy))

    def ask(self, count: int = 1) -> None:
        for _ in range(count):
            self.rig.infer()

    def seen(self) -> list[Seen]:
        return [item for item in self.tap.take(10_000)[0] if isinstance(item, Seen)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_nothing_is_taken_where_the_policy_wants_nothing(bench: Bench) -> None:
    bench.deploy(TelemetryPolicy())
    bench.ask()
    assert not bench.seen()
    assert all(not served.watchers for served in bench.rig.table)


def test_alarms_get_every_answer_at_once_and_no_inputs(bench: Bench) -> None:
    bench.deploy(ALARMS)
    bench.tap.wait(0)
    bench.ask(3)
    assert [one.outputs["y"].tolist() for one in bench.judged] == [(2 * X).tolist()] * 3
    assert not bench.tap._urgent.is_set(), "the watch's thread isn't needed for it"
    seen = bench.seen()
    assert [(one.model, one.version, dict(one.inputs)) for one in seen] == [("digits", "1", {})] * 3
    assert np.array_equal(seen[0].outputs["y"], 2 * X)
    assert (seen[0].time, seen[0].at, seen[0].disagrees) == (5e8, bench.rig.clock.now, None)


def test_alarms_that_take_long_are_left_to_the_watch_s_thread_which_is_woken(bench: Bench) -> None:
    bench.slow = True
    bench.deploy(ALARMS)
    bench.tap.wait(0)
    bench.ask(10)
    assert len(bench.judged) < 10
    assert bench.tap._urgent.is_set()
    bench.tap.take(1)
    assert len(bench.judged) == 10, "it judges all of them before it goes on with the first"


def test_on_an_event_loop_alarms_are_judged_behind_the_answer(bench: Bench) -> None:
    bench.deploy(ALARMS)

    async def ask() -> None:
        bench.ask()
        assert not bench.judged
        await asyncio.sleep(0)
        assert len(bench.judged) == 1

    asyncio.run(ask())


def test_what_a_shadow_answered_is_judged_at_once_too(bench: Bench) -> None:
    rule = AlarmRule(name="odd", model="digits", when="disagrees")
    bench.deploy(TelemetryPolicy(alarms=(rule,)))
    (served,) = bench.rig.table
    bench.tap.compared(served, {"x": X}, {"y": X}, True)
    assert [one.disagrees for one in bench.judged] == [True]


def test_drift_alone_gets_its_share_evenly_without_being_woken(bench: Bench) -> None:
    bench.deploy(TelemetryPolicy(drift=DriftPolicy(fraction=0.25)))
    bench.tap.wait(0)
    bench.ask(10)
    seen = bench.seen()
    assert [one.sampled for one in seen] == [True, True]
    assert np.array_equal(seen[0].inputs["x"], X)
    assert not bench.tap._urgent.is_set()


def test_beside_alarms_drift_still_gets_only_its_share(bench: Bench) -> None:
    bench.deploy(TelemetryPolicy(alarms=(ALARM,), drift=DriftPolicy(fraction=0.5)))
    bench.ask(4)
    assert [one.sampled for one in bench.seen()] == [False, True, False, True]


def test_captures_get_only_inputs_that_may_be_kept(bench: Bench) -> None:
    bench.deploy(TelemetryPolicy(captures=(CaptureRule(name="some"),), inputs=("*/*",)))
    bench.ask()
    rule = CaptureRule(name="some", inputs=True)
    bench.deploy(TelemetryPolicy(captures=(rule,)), version="2")
    bench.ask()
    assert [dict(one.inputs) for one in bench.seen()] == [{}, {}]
    bench.deploy(TelemetryPolicy(captures=(rule,), inputs=("digits/x",)), version="3")
    bench.ask()
    (seen,) = bench.seen()
    assert np.array_equal(seen.inputs["x"], X)


def test_a_model_that_is_swapped_in_is_watched_and_the_old_one_is_not(bench: Bench) -> None:
    bench.deploy(ALARMS)
    (old,) = bench.rig.table
    bench.deploy(ALARMS, factor=3, version="2")
    bench.ask()
    assert [(one.version, float(one.outputs["y"][0, 0])) for one in bench.seen()] == [("2", 3.0)]
    assert not old.watchers


INPUTS = TelemetryPolicy(captures=(CaptureRule(name="all", inputs=True),), inputs=("*/*",))


def test_what_is_taken_is_a_copy(bench: Bench) -> None:
    bench.deploy(INPUTS)
    x = X.copy()
    bench.rig.infer(x=x)
    x[:] = 99
    assert np.array_equal(bench.seen()[0].inputs["x"], X)


def test_an_input_that_fills_its_request_s_body_is_held_instead(bench: Bench) -> None:
    bench.deploy(INPUTS)
    body = b"head" * 8 + X.tobytes()
    x = np.frombuffer(body, X.dtype, X.size, 32).reshape(X.shape)
    bench.rig.infer(x=x)
    taken = bench.seen()[0].inputs["x"]
    assert np.shares_memory(taken, x)
    assert np.array_equal(taken, X)


@pytest.mark.parametrize(
    "buffer",
    [
        pytest.param(lambda: X.tobytes() + bytes(ITEM_BYTES + 1), id="much else in the body"),
        pytest.param(lambda: bytearray(X.tobytes()), id="a buffer that may be written to"),
        pytest.param(lambda: memoryview(bytearray(X.tobytes())).toreadonly(), id="a view of one"),
    ],
)
def test_a_view_of_anything_else_is_copied(
    bench: Bench, buffer: Callable[[], bytes | bytearray | memoryview]
) -> None:
    bench.deploy(INPUTS)
    x = np.frombuffer(buffer(), X.dtype, X.size).reshape(X.shape)
    bench.rig.infer(x=x)
    taken = bench.seen()[0].inputs["x"]
    assert not np.shares_memory(taken, x)
    assert np.array_equal(taken, X)


def test_the_whole_body_counts_towards_what_waits(tmp_path: Path) -> None:
    beside = ITEM_BYTES // 2
    bench = Bench(tmp_path, max_bytes=4 * (ITEM_BYTES + beside + 2 * X.nbytes))
    bench.deploy(INPUTS)
    for _ in range(10):
        bench.rig.infer(
            x=np.frombuffer(X.tobytes() + bytes(beside), X.dtype, X.size).reshape(X.shape)
        )
    items, lost = bench.tap.take(100)
    assert (sum(isinstance(item, Seen) for item in items), lost) == (4, 6)


def test_overload_lets_go_and_counts(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_bytes=3 * ITEM_BYTES)
    bench.deploy(ALARMS)
    bench.ask(10)
    items, lost = bench.tap.take(100)
    assert (sum(isinstance(item, Seen) for item in items), lost) == (2, 8)
    bench.ask()
    assert len(bench.seen()) == 1, "what was taken has made room"
    assert bench.tap.take(1) == ([], 0)


def test_items_are_bounded_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_items=4)
    bench.deploy(ALARMS)
    bench.ask(10)
    assert bench.tap.take(100)[1] == 7  # the release takes a place, and is never let go


def test_readings_come_in_order_with_requests(bench: Bench) -> None:
    bench.deploy(ALARMS)
    bench.ask()
    assert bench.tap.hear(Reading(stream="reefer", values={"t": 4.0}))
    bench.ask()
    kinds = [type(item) for item in bench.tap.take(10)[0]]
    assert kinds[-3:] == [Seen, Heard, Seen]


def test_a_closed_tap_takes_nothing(bench: Bench) -> None:
    bench.deploy(ALARMS)
    bench.tap.close()
    bench.ask()
    assert not bench.tap.hear(Reading(stream="reefer", values={}))
    assert not bench.seen()


@given(hnp.array_shapes(min_dims=1, max_dims=4, max_side=70))
def test_what_drift_looks_at_is_bounded_and_in_rows_where_they_are_small(
    shape: tuple[int, ...],
) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    rows, values = looked_at(array).shape
    if array.size // len(array) <= MAX_FEATURES:
        assert values == array.size // len(array)
        assert rows * values <= MAX_ROW_VALUES
        assert rows * values * 2 >= min(array.size, MAX_ROW_VALUES - values)
    else:
        assert rows == 1
        assert values <= MAX_VALUES
        assert values > MAX_FEATURES


@given(
    st.sampled_from([(1, 3, 64, 64), (1, 64, 64, 3), (2, 48, 96, 3), (1, 1, 480, 640)]),
)
def test_no_channel_of_an_image_is_overlooked(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape)
    where = np.unravel_index(looked_at(array).ravel(), shape)
    for axis, length in enumerate(shape):
        assert len(np.unique(where[axis])) == length
