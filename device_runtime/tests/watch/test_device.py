"""The whole watch of a device over its table, releases and spool."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_runtime.tests.reconciler.rig import Rig
from device_runtime.tests.support import X, details
from device_runtime.tests.watch.seeing import references
from edgefleet.protocol.event import Alarm, EventData, Sample, SketchWindow, Window
from edgefleet.protocol.policy import (
    Action,
    AlarmRule,
    CaptureRule,
    DriftPolicy,
    TelemetryPolicy,
    WindowRule,
)
from edgefleet.protocol.release import Release, ReleaseModel, RuntimeSettings
from edgefleet.protocol.segment import read_segment
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.device_watch import DeviceWatch
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.watch.actions.settings import ActionSettings
from edgefleet_runtime.watch.seen import Seen

RANDOM = np.random.default_rng(11)
NORMAL = RANDOM.normal(size=(1000, 4)).astype(np.float32)


class Bench:
    """A device with its watch, whose thread a test starts or stands in for."""

    def __init__(self, root: Path) -> None:
        (root / "alarms").mkdir()
        self.acted = root / "alarms" / "acted.ndjson"
        self.rig = Rig(root, on_compared=self._compared)
        self.time = 1_800_000_000.0
        self.spool = Spool(
            root / "spool",
            self.rig.channel,
            device="cam-07",
            max_bytes=1 << 24,
            clock=self.rig.clock,
        )
        self.watch = DeviceWatch(
            self.rig.table,
            self.spool,
            lambda: self.rig.rack.slots,
            root,
            ActionSettings(folder=root / "alarms"),
            clock=self.rig.clock,
            now=lambda: self.time,
        )
        self.rig.on_serve.append(self._serves)

    def _serves(self) -> None:
        running = self.rig.rack.running
        assert running is not None
        self.watch.watch.follow(running.acquired.release)

    def _compared(self, *seen: Any) -> None:
        self.watch.tap.compared(*seen)

    def bundle(self, factor: float) -> Any:
        """``y = factor * x`` with the reference of `NORMAL` rows."""
        sketches = references({f"x[{index}]": NORMAL[:, index] for index in range(4)})
        about = details(factor, entry="model.json", variant="fp32", sketches=sketches)
        return self.rig.repository.bundle({"model.json": b'{"factor": %f}' % factor}, about)

    def deploy(self, policy: TelemetryPolicy, shadow: float | None = None) -> None:
        models = [ReleaseModel(name="digits", version="1", bundle=self.bundle(2.0).digest)]
        if shadow is not None:
            other = self.bundle(shadow).digest
            models.append(ReleaseModel(name="digits", version="2", bundle=other, role="shadow"))
        release = Release(
            models=tuple(models), telemetry=policy, settings=RuntimeSettings(shadow_share=1.0)
        )
        self.rig.deploy(self.rig.repository.put(release.encoded()))

    def passes(self, seconds: float) -> None:
        self.time += seconds
        self.rig.clock.now += seconds

    def sent(self) -> list[EventData]:
        """All that reaches the fleet, once the device ends."""
        assert self.watch.finish(90.0)
        self.spool.finish()
        segments = [d for n, d in self.rig.channel.segments.items() if "ndjson" in n]
        cold = [event for data in segments for event in read_segment(io.BytesIO(data))]
        return [event.payload() for event in (*cold, *self.rig.channel.hot)]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.rig.driver.close()
    bench.spool.close()
    for thread in threading.enumerate():
        if thread.name == "shadow digits":
            thread.join(90)


def test_drift_is_found_by_the_reference_in_the_bundle_and_what_drifts_is_captured(
    bench: Bench,
) -> None:
    moved = CaptureRule(name="moved", when="size(drifted) > 0", per_hour=5, inputs=True)
    policy = TelemetryPolicy(
        drift=DriftPolicy(window_s=60.0), captures=(moved,), inputs=("digits/x",)
    )
    bench.deploy(policy)
    for shift in (0.0, 3.0):
        for row in NORMAL[:200]:
            bench.rig.infer(x=row[None] + np.float32(shift))
            bench.watch.watch.work()
        bench.passes(60.0)
        bench.watch.watch.work()
        while bench.watch.watch._more:
            bench.watch.watch.work()
    bench.rig.infer(x=X)
    sent = bench.sent()
    windows = [data for data in sent if isinstance(data, SketchWindow)]
    assert [window.verdict for window in windows] == ["stable", "moved"]
    assert set(windows[1].drift) == {f"x[{index}]" for index in range(4)}
    (alarm,) = [data for data in sent if isinstance(data, Alarm)]
    assert (alarm.rule, alarm.model) == ("drift", "digits")
    (sample,) = [data for data in sent if isinstance(data, Sample)]
    assert (sample.reason, list(sample.inputs)) == ("moved", ["x"])


def test_alarms_windows_and_captures_around_alarms_work_together(bench: Bench) -> None:
    act = Action(kind="file", target=bench.acted.name)
    rule = AlarmRule(name="high", model="digits", when="values[0] > 100.0", actions=(act,))
    around = CaptureRule(name="around", alarm="high", before=2, after=1)
    window = WindowRule(name="minute", model="digits", size_s=60.0)
    bench.deploy(TelemetryPolicy(alarms=(rule,), captures=(around,), windows=(window,)))
    for value in (1, 2, 3, 90, 4, 5):
        bench.rig.infer(x=np.full((1, 4), value, np.float32))
    bench.watch.watch.work()
    eventually(bench.acted.exists)
    sent = bench.sent()
    firsts = [s.answers[0].values[0] for s in sent if isinstance(s, Sample)]
    assert sorted(value for value in firsts if value is not None) == [4.0, 6.0, 8.0, 180.0]
    assert [w.count for w in sent if isinstance(w, Window)] == [6]
    assert sorted(a.ended for a in sent if isinstance(a, Alarm)) == [False, True]


def test_an_alarm_is_not_behind_what_else_the_watch_does(bench: Bench) -> None:
    """If this fails, an alarm waits for sketches, windows or samples of earlier requests."""
    act = Action(kind="file", target=bench.acted.name)
    rule = AlarmRule(name="high", model="digits", when="values[0] > 100.0", actions=(act,))
    policy = TelemetryPolicy(alarms=(rule,), drift=DriftPolicy(window_s=60.0))
    bench.deploy(policy)
    bench.rig.infer()
    acted_within: list[bool] = []

    def sketch(seen: Seen) -> None:
        del seen
        if not acted_within:
            bench.rig.infer(x=np.full((1, 4), 90, np.float32))
            eventually(bench.acted.exists)
            acted_within.append(True)

    bench.watch._sketcher.see = sketch  # type: ignore[method-assign]
    bench.watch.watch.work()
    assert acted_within == [True]


def test_what_a_shadow_disagrees_with_becomes_a_sample(bench: Bench) -> None:
    rule = CaptureRule(name="odd", when="disagrees", inputs=True)
    bench.deploy(TelemetryPolicy(captures=(rule,), inputs=("*/*",)), shadow=-2.0)
    bench.rig.infer(x=np.array([[0, 0, 0, 5]], np.float32))
    shadow = bench.rig.model("2")
    eventually(lambda: (shadow := bench.rig.model("2").shadow) and shadow.compared == 1)
    assert shadow.role == "shadow"

    def taken() -> bool:
        bench.watch.checkpoint()
        return bool(bench.spool.samples.waiting())

    eventually(taken)
    samples = [data for data in bench.sent() if isinstance(data, Sample)]
    assert [(s.reason, s.model_version, list(s.inputs)) for s in samples] == [("odd", "1", ["x"])]


def test_the_thread_watches_by_itself_and_ends_in_order(bench: Bench) -> None:
    act = Action(kind="file", target=bench.acted.name)
    rule = AlarmRule(name="high", model="digits", when="values[0] > 100.0", actions=(act,))
    bench.deploy(TelemetryPolicy(alarms=(rule,)))
    bench.watch.watch.start()
    bench.rig.infer(x=np.full((1, 4), 90, np.float32))
    eventually(bench.acted.exists)
    assert bench.watch.stop(90.0)
