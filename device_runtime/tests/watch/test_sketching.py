"""Sketches of each window are held against the reference in the bundle, with no network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.tests.support import Clock
from device_runtime.tests.watch.seeing import HOUR, START, Kept, references, release, seen
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.drift import RANK_ERROR, Limits
from edgefleet.protocol.event import HealthEvent, SketchWindow
from edgefleet.protocol.policy import DriftPolicy
from edgefleet.protocol.release import ReleaseModel
from edgefleet.protocol.sketch import (
    ClassSketch,
    NumberSketch,
    cumulative,
    merge_classes,
    merge_numbers,
    read_sketch,
)
from edgefleet_runtime.watch.checkpoint import FILE
from edgefleet_runtime.watch.sketching import CHECKPOINT_S, MAX_MERGED, Sketcher
from edgefleet_runtime.watch.tap import MAX_FEATURES
from edgefleet_runtime.watch.window import MAX_MODEL_FEATURES

RANDOM = np.random.default_rng(7)
NORMAL = RANDOM.normal(size=(2000, 2)).astype(np.float32)
REFERENCE = references({"x[0]": NORMAL[:, 0], "x[1]": NORMAL[:, 1]}, tops=np.arange(2000) % 4)
SHIFT = np.array([0.0, 3.0], np.float32)
POLICY = DriftPolicy(window_s=HOUR)


class Bench:
    """A sketcher whose time passes when a test says so."""

    def __init__(self, root: Path, reference: dict[str, Any] | None = None) -> None:
        self.out = Kept()
        self.clock = Clock()
        self.time = START
        self.reference = REFERENCE if reference is None else reference
        self.root = root
        self.sketcher = self.started()

    def started(self, policy: DriftPolicy | None = POLICY) -> Sketcher:
        """The next process over the same folder."""
        self.sketcher = Sketcher(
            self.out,
            lambda _bundle, _variant: self.reference,
            self.root,
            clock=self.clock,
            now=lambda: self.time,
        )
        self.sketcher.follow(release(policy))
        return self.sketcher

    def passes(self, seconds: float) -> None:
        self.time += seconds
        self.clock.now += seconds
        self.turn()

    def turn(self) -> None:
        self.sketcher.turn(self.clock.now, self.time)
        while self.sketcher.go_on():
            pass

    def ask(self, x: Any, tops: Any = (), **more: Any) -> None:
        for index, row in enumerate(np.atleast_2d(np.asarray(x, np.float32))):
            y = np.eye(4, dtype=np.float32)[[tops[index]]] * 0.9 if len(tops) else np.zeros(1)
            about = {"time": self.time, "at": self.clock.now, **more}
            self.sketcher.see(seen({"x": row[None]}, {"y": y}, **about))

    def ask_like_reference(self, count: int = 400, **more: Any) -> None:
        start = int(RANDOM.integers(0, len(NORMAL) - count))
        self.ask(NORMAL[start : start + count], np.arange(count) % 4, **more)

    def ask_moved(self, count: int = 400, **more: Any) -> None:
        self.ask(NORMAL[:count] + SHIFT, np.arange(count) % 4, **more)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_window_that_is_like_the_reference_is_stable(bench: Bench) -> None:
    bench.ask_like_reference()
    assert not bench.out.windows
    bench.passes(HOUR)
    (window,) = bench.out.windows
    assert (window.model, window.model_version, window.bundle) == ("digits", "1", "sha256:a")
    assert (window.start.timestamp(), window.end.timestamp()) == (START, START + HOUR)
    assert sorted(window.features) == ["x[0]", "x[1]", "y:score", "y:top"]
    assert (window.requests, window.verdict) == (400, "stable")
    assert sorted(window.drift) == ["x[0]", "x[1]", "y:top"], "what the reference knows"
    assert not bench.out.alarms


def test_what_has_moved_is_named_by_an_alarm_at_once_and_told_once(bench: Bench) -> None:
    for _ in range(3):
        bench.ask_moved()
        bench.passes(HOUR)
    assert [window.verdict for window in bench.out.windows] == ["moved"] * 3
    (alarm,) = bench.out.alarms
    assert (alarm.rule, alarm.model, alarm.ended) == ("drift", "digits", False)
    assert "x[1]" in alarm.message
    assert "x[0]" not in alarm.message
    assert list(alarm.values) == ["x[1]"]
    assert bench.sketcher.drifted("digits") == ("x[1]",)


def test_the_alarm_ends_when_the_data_is_back(bench: Bench) -> None:
    bench.ask_moved()
    bench.passes(HOUR)
    bench.ask_like_reference()
    bench.passes(HOUR)
    assert [alarm.ended for alarm in bench.out.alarms] == [False, True]
    assert bench.sketcher.drifted("digits") == ()


def test_another_class_mix_is_drift_too(bench: Bench) -> None:
    bench.ask(NORMAL[:400], np.zeros(400, int))
    bench.passes(HOUR)
    assert bench.sketcher.drifted("digits") == ("y:top",)


def test_without_a_reference_there_are_sketches_and_no_verdict(tmp_path: Path) -> None:
    bench = Bench(tmp_path, reference={})
    bench.ask_moved()
    bench.passes(HOUR)
    (window,) = bench.out.windows
    assert (window.verdict, window.drift) == ("unknown", {})
    assert len(window.features) == 4


def test_a_reference_that_is_damaged_spoils_no_other(tmp_path: Path) -> None:
    damaged = {**REFERENCE, "x[0]": {"kll": "AAAA", "count": 3, "missing": 0}, "x[1]": {"odd": 1}}
    bench = Bench(tmp_path, reference=damaged)
    bench.ask_like_reference()
    bench.passes(HOUR)
    assert list(bench.out.windows[0].drift) == ["y:top"]


def test_rare_traffic_gets_a_verdict_from_several_windows(bench: Bench) -> None:
    for hour in range(5):
        assert not bench.out.alarms, f"no verdict after {hour} hours"
        bench.ask_moved(24)
        bench.passes(HOUR)
    verdicts = [window.verdict for window in bench.out.windows]
    assert verdicts == ["unknown"] * 4 + ["moved"]
    assert [window.requests for window in bench.out.windows] == [24] * 5, "each sends its own"
    assert len(bench.out.alarms) == 1


def test_what_is_too_long_ago_is_not_judged_with_what_comes(bench: Bench) -> None:
    bench.ask_moved(60)
    bench.passes(HOUR * (MAX_MERGED + 1))
    bench.ask_moved(60)
    bench.passes(HOUR)
    assert [window.verdict for window in bench.out.windows] == ["unknown", "unknown"]


def test_windows_are_aligned_so_that_those_of_devices_merge(bench: Bench) -> None:
    bench.time += 1234.5
    bench.ask_like_reference()
    bench.passes(HOUR - 1234.5 + 1)
    (window,) = bench.out.windows
    assert window.start.timestamp() == START


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86_400.0, -600.0, 600.0, 40 * 365 * 86_400.0])
def test_a_clock_that_is_set_anew_closes_the_window(bench: Bench, jump_s: float) -> None:
    bench.time += 1800
    bench.ask_like_reference(200)
    bench.time += jump_s
    bench.ask_like_reference(200)
    bench.turn()
    (window,) = bench.out.windows
    assert (window.requests, window.start.timestamp()) == (200, START)
    bench.passes(HOUR)
    assert bench.out.windows[1].start.timestamp() == (START + 1800 + jump_s) // HOUR * HOUR
    assert len({event.id for event in bench.out.events}) == 2


def test_another_bundle_has_windows_of_its_own_and_ends_the_alarm(bench: Bench) -> None:
    bench.ask_moved()
    bench.passes(HOUR)
    bench.ask_moved(300)
    bench.ask_like_reference(bundle="sha256:b", version="2")
    bench.passes(HOUR)
    _, before, after = bench.out.windows
    assert (before.bundle, before.requests) == ("sha256:a", 300)
    assert (after.bundle, after.model_version, after.requests) == ("sha256:b", "2", 400)
    assert [alarm.ended for alarm in bench.out.alarms] == [False, True]
    assert before.start == after.start
    assert bench.sketcher.drifted("digits") == (), "what the old one saw says nothing of the new"


def test_a_model_that_is_taken_away_leaves_its_last_window_alone(bench: Bench) -> None:
    bench.ask_moved()
    bench.passes(HOUR)
    bench.ask_moved(300)
    bench.sketcher.follow(msgspec.structs.replace(release(POLICY), models=()))
    bench.turn()
    assert [window.requests for window in bench.out.windows] == [400, 300]
    assert [alarm.ended for alarm in bench.out.alarms] == [False, True]
    assert bench.sketcher.drifted("digits") == ()
    bench.sketcher.follow(release(POLICY))
    bench.ask_moved()
    bench.passes(HOUR)
    assert [alarm.ended for alarm in bench.out.alarms] == [False, True, False]


def test_models_that_come_and_go_leave_nothing_in_the_checkpoint(bench: Bench) -> None:
    sizes = []
    for number in range(12):
        name = f"model-{number:02}"
        model = ReleaseModel(name=name, version="1", bundle=digest_of(name.encode()))
        bench.sketcher.follow(msgspec.structs.replace(release(POLICY), models=(model,)))
        bench.ask_moved(5, model=name)  # too little for a verdict: it is carried on
        bench.passes(HOUR)
        bench.ask_moved(model=name)
        bench.passes(HOUR)
        bench.ask_moved(5, model=name)
        bench.passes(HOUR)
        bench.sketcher.settle()
        sizes.append((bench.root / FILE).stat().st_size)
    assert len(bench.out.windows) == 36
    assert max(sizes[1:]) < 1.2 * sizes[0]


def test_requests_that_are_not_of_drifts_share_are_left_out(bench: Bench) -> None:
    bench.ask_like_reference(200)
    bench.ask_moved(200, sampled=False)
    bench.passes(HOUR)
    assert bench.out.windows[0].requests == 200


def test_an_end_in_order_keeps_the_open_window(bench: Bench) -> None:
    bench.ask_like_reference(200)
    bench.sketcher.close()
    assert not bench.out.windows
    bench.started()
    bench.ask_like_reference(200)
    bench.passes(HOUR)
    (window,) = bench.out.windows
    sketch = read_sketch(window.features["x[0]"])
    assert isinstance(sketch, NumberSketch)
    assert (window.requests, sketch.count, window.verdict) == (400, 400, "stable")


def test_a_crash_loses_at_most_what_came_since_the_checkpoint(bench: Bench) -> None:
    bench.ask_like_reference(200)
    bench.passes(CHECKPOINT_S)
    bench.ask_like_reference(100)
    bench.started()
    bench.passes(HOUR)
    assert [window.requests for window in bench.out.windows] == [200]


def test_a_window_over_which_the_process_was_down_is_sent_by_the_next(bench: Bench) -> None:
    bench.ask_moved()
    bench.sketcher.close()
    bench.time += 5 * HOUR
    bench.started()
    bench.turn()
    assert [window.verdict for window in bench.out.windows] == ["moved"]
    assert len(bench.out.alarms) == 1


def test_what_moved_is_known_after_a_restart_and_not_told_again(bench: Bench) -> None:
    bench.ask_moved()
    bench.passes(HOUR)
    bench.sketcher.close()
    bench.started()
    assert bench.sketcher.drifted("digits") == ("x[1]",)
    bench.ask_moved()
    bench.passes(HOUR)
    assert len(bench.out.alarms) == 1


def test_a_window_that_nobody_kept_yet_is_sent_again_as_the_same_event(bench: Bench) -> None:
    bench.out.busy = True
    bench.ask_like_reference()
    bench.passes(HOUR)
    bench.sketcher.close()
    bench.out.busy = False
    bench.started()
    first, again = bench.out.events
    assert first.id == again.id
    bench.sketcher.settle()
    bench.started()
    assert len(bench.out.events) == 2


def test_a_window_that_was_being_judged_goes_on_after_a_restart(bench: Bench) -> None:
    bench.ask_moved()
    bench.time += HOUR
    bench.clock.now += HOUR
    bench.sketcher.turn(bench.clock.now, bench.time)
    assert bench.sketcher.go_on(), "the first features are judged"
    bench.sketcher.save()
    bench.started()
    bench.turn()
    assert [window.verdict for window in bench.out.windows] == ["moved"]


@pytest.mark.parametrize("content", [b"", b"\x81\xa4open", b"\xc1" * 100])
def test_a_damaged_checkpoint_is_set_aside_and_told(bench: Bench, content: bytes) -> None:
    bench.ask_like_reference()
    bench.sketcher.close()
    (bench.root / FILE).write_bytes(content)
    bench.started()
    told = [data for data in bench.out.told if isinstance(data, HealthEvent)]
    assert [data.what for data in told] == ["sketches-unreadable"]
    assert (bench.root / f"{FILE}.unreadable").read_bytes() == content
    bench.ask_like_reference()
    bench.passes(HOUR)
    assert len(bench.out.windows) == 1


def test_a_checkpoint_with_a_damaged_sketch_is_set_aside(bench: Bench) -> None:
    bench.ask_like_reference()
    bench.sketcher.close()
    path = bench.root / FILE
    data = path.read_bytes()
    at = data.index(b"kll") + 6
    path.write_bytes(data[:at] + b"\xff" * 8 + data[at + 8 :])
    bench.started()
    assert [data.what for data in bench.out.told if isinstance(data, HealthEvent)]


def test_a_full_disk_costs_the_checkpoint_and_nothing_else(bench: Bench) -> None:
    (bench.root / FILE).mkdir()
    bench.ask_like_reference()
    bench.passes(CHECKPOINT_S)
    bench.passes(HOUR)
    assert [window.verdict for window in bench.out.windows] == ["stable"]


def test_switching_drift_off_closes_what_is_open(bench: Bench) -> None:
    bench.ask_like_reference()
    bench.sketcher.follow(release(None))
    bench.turn()
    assert len(bench.out.windows) == 1
    bench.ask_like_reference()
    bench.passes(HOUR)
    assert len(bench.out.windows) == 1


def test_without_the_library_it_is_told_and_nothing_is_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasketches", None)
    bench.sketcher.follow(release(POLICY))
    bench.ask_like_reference()
    (told,) = bench.out.told
    assert isinstance(told, HealthEvent)
    assert "edgefleet-runtime[drift]" in told.message


def test_a_large_input_is_one_feature_and_a_wide_model_is_bounded(tmp_path: Path) -> None:
    bench = Bench(tmp_path, reference={})
    image = np.zeros((1, 3, 64, 64), np.float32)
    wide = {f"w{index}": np.zeros((1, MAX_FEATURES), np.float32) for index in range(10)}
    bench.sketcher.see(seen({"image": image, **wide}, time=bench.time, at=bench.clock.now))
    bench.passes(HOUR)
    features = {name for window in bench.out.windows for name in window.features}
    assert "image" in features
    assert len(features) == MAX_MODEL_FEATURES


def test_many_features_are_spread_over_events_that_each_hold_few(tmp_path: Path) -> None:
    bench = Bench(tmp_path, reference={})
    for _ in range(40):
        rows = RANDOM.normal(size=(64, 64)).astype(np.float32)
        inputs = dict.fromkeys("abcd", rows)
        bench.sketcher.see(seen(inputs, time=bench.time, at=bench.clock.now))
    bench.passes(HOUR)
    windows = bench.out.windows
    assert len(windows) > 1
    assert [window.requests for window in windows] == [40] + [0] * (len(windows) - 1)
    assert sum(len(window.features) for window in windows) == 256
    assert all(len(event.data) < 1 << 20 for event in bench.out.events)


def test_what_is_missing_and_what_is_no_number_are_told_apart(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ask(np.where(np.arange(400)[:, None] % 2, np.nan, NORMAL[:400]), np.arange(400) % 4)
    text = np.array([[b"word"]], object)
    bench.sketcher.see(seen({"text": text}, time=bench.time, at=bench.clock.now))
    bench.passes(HOUR)
    (window,) = bench.out.windows
    assert "text" not in window.features
    assert "missing" in window.drift["x[0]"].why
    assert window.verdict == "moved"


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 1500), min_size=1, max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_merged_over_devices_and_weeks_they_equal_the_whole_within_the_bound(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    values = np.random.default_rng(seed).gamma(2.0, size=(sum(sizes), 1)).astype(np.float32)
    windows: list[SketchWindow] = []
    parts = np.split(values, np.cumsum(sizes)[:-1])
    for number, part in enumerate(parts):
        bench = Bench(tmp_path_factory.mktemp("device"), reference={})
        bench.time += number * 7 * 86_400
        tops = part[:, 0].astype(int) % 4
        y = np.eye(4, dtype=np.float32)[tops][:64]
        bench.sketcher.see(seen({"x": part}, {"y": y}, time=bench.time, at=bench.clock.now))
        bench.passes(HOUR)
        windows += bench.out.windows
    found = [read_sketch(window.features["x[0]"]) for window in windows]
    merged = merge_numbers(one for one in found if isinstance(one, NumberSketch))
    assert merged.count == len(values)
    points = np.quantile(values, np.linspace(0.01, 0.99, 50)).astype(np.float32)
    exact = [(values <= point).mean() for point in points]
    apart = np.abs(np.subtract(cumulative(merged, points.tolist()), exact)).max()
    assert apart <= RANK_ERROR
    classes = [read_sketch(window.features["y:top"]) for window in windows]
    counted = merge_classes(one for one in classes if isinstance(one, ClassSketch))
    assert sum(counted.counts.values()) == sum(min(64, size) for size in sizes)


def test_the_policys_limits_count(bench: Bench) -> None:
    lax = Limits(psi_moved=1e6, ks_moved=2.0, outside=2.0)
    bench.started(DriftPolicy(window_s=HOUR, limits=lax))
    bench.ask_moved()
    bench.passes(HOUR)
    assert [window.verdict for window in bench.out.windows] == ["watch"]
    assert not bench.out.alarms
