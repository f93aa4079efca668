"""Whatever is put, sent, dropped and killed in whatever order: counts are exact, the cap holds."""

from __future__ import annotations

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device_runtime.tests.spool.rig import (
    DAY,
    MIB,
    Device,
    alarm,
    prediction,
    reading,
    sample,
    window,
)
from edgefleet.errors import StorageFullError
from edgefleet.protocol.event import EventData, HealthEvent
from edgefleet.protocol.policy import TelemetryPolicy

counts = st.integers(1, 120)
fillers = st.sampled_from([0, 300, 1500, 9000])


class Spooling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.device = Device(self.folder / "spool", 2 * MIB)
        self.killed = False
        self.number = 0

    def teardown(self) -> None:
        try:
            self.device.drain()
            self.device.turn(finish=True)
            self.device.drain()
            self.settled()
        finally:
            self.device.store.close()
            shutil.rmtree(self.folder)

    def settled(self) -> None:
        """With everything sent, the other side can tell exactly what was lost."""
        device = self.device
        assert sum(part.events for part in device.store.parts) == 0
        for kind in ("prediction", "reading", "window", "sample", "alarm", "health"):
            put = sum(of == kind for of in device.put_.values())
            seen, dropped = device.counted(kind)
            arrived = device.arrived(kind)
            # Events that were turned away just before a kill may not have been counted yet.
            assert seen <= put if self.killed else seen == put
            assert seen - dropped == arrived

    def _put(self, *data: EventData) -> None:
        self.number += len(data)
        self.device.put(*data)

    @rule(count=counts, top=st.integers(0, 12), score=st.floats(0, 1), filler=fillers)
    def predict(self, count: int, top: int, score: float, filler: int) -> None:
        self._put(*(prediction(top, score, filler=filler) for _ in range(count)))

    @rule(count=counts)
    def read(self, count: int) -> None:
        self._put(*(reading(float(n)) for n in range(count)))

    @rule(count=counts)
    def reduce(self, count: int) -> None:
        self._put(*(window(n) for n in range(count)))

    @rule(count=st.integers(1, 20), size=st.integers(1, 60_000))
    def capture(self, count: int, size: int) -> None:
        for _ in range(count):
            self.number += 1
            try:
                self.device.samples.put(self.number.to_bytes(4, "big") * (size // 4 + 1))
            except StorageFullError:
                break
            self._put(sample(self.number))

    @rule(count=st.integers(1, 30), filler=st.sampled_from([0, 2000]))
    def alarms(self, count: int, filler: int) -> None:
        self._put(*(alarm("x" * filler) for _ in range(count)))
        self._put(HealthEvent(what="started", message="now"))

    @rule(seconds=st.sampled_from([0.5, 10, 100, 4000]), finish=st.booleans())
    def turn(self, seconds: float, finish: bool) -> None:  # noqa: FBT001 - hypothesis' own
        self.device.turn(seconds, finish=finish)

    @rule(days=st.integers(-20_000, 20_000))
    def jump(self, days: int) -> None:
        self.device.time = DAY + timedelta(days=days)

    @rule(most=st.integers(1, 50))
    def send_hot(self, most: int) -> None:
        self.device.send_hot(most)

    @rule(segments=st.integers(0, 5), everything=st.booleans(), lean=st.booleans())
    def send(self, segments: int, everything: bool, lean: bool) -> None:  # noqa: FBT001
        self.device.send(segments=segments, everything=everything, lean=lean)

    @rule()
    def deliver_samples(self) -> None:
        for path in self.device.samples.waiting():
            self.device.samples.remove(path)

    @rule()
    def kill(self) -> None:
        self.killed = True
        self.device.killed()

    @precondition(lambda self: self.number > 0)
    @rule(cap=st.sampled_from([MIB, 2 * MIB]))
    def resize(self, cap: int) -> None:
        self.device.store.follow(TelemetryPolicy(), cap)
        self.device.store.turn(self.device.time.toordinal())

    @invariant()
    def holds(self) -> None:
        self.device.check()


TestSpooling = Spooling.TestCase
TestSpooling.settings = settings(
    max_examples=25,
    phases=[Phase.generate],
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
