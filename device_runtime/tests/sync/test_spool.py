"""The sync over the spool's own store: a link that stands still, and months without one."""

from __future__ import annotations

import io
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from device_runtime.tests.support import Clock, MemoryChannel
from device_runtime.tests.sync.rig import metric
from edgefleet.errors import UnavailableError
from edgefleet.protocol.event import Alarm, Event, Metric, new_event
from edgefleet.protocol.policy import Span, SyncPolicy, TelemetryPolicy
from edgefleet.protocol.release import Release
from edgefleet.protocol.segment import read_segment
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.sync.lane import in_thread
from edgefleet_runtime.sync.sync import Sync

CAP = 1 << 20
EAGER = TelemetryPolicy(segment_max_age_s=0.01)


class Hanging(MemoryChannel):
    """Uploads take until ``free`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.hangs = threading.Event()

    def upload(self, name: str, path: Path) -> None:
        self.hangs.set()
        assert self.free.wait(60)
        super().upload(name, path)


def on_device(root: Path, channel: MemoryChannel, **sync: object) -> Spool:
    return Spool(
        root,
        channel,
        device="cam-07",
        max_bytes=CAP,
        syncing=partial(Sync, start=in_thread, **sync),  # type: ignore[arg-type]
    )


@contextmanager
def hanging(root: Path) -> Iterator[tuple[Spool, Hanging]]:
    """A spool that runs, and whose first upload hangs."""
    channel = Hanging()
    spool = on_device(root, channel)
    spool.follow(Release(telemetry=EAGER))
    spool.put([metric(0.0)])
    spool.start()
    try:
        eventually(channel.hangs.is_set)
        yield spool, channel
    finally:
        channel.free.set()
        spool.stop(60)


class Calendar:
    """A device's clock, which tells what a test says."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment

    def stamp(self) -> float:
        return self.moment.timestamp()


def received(channel: MemoryChannel) -> list[Event]:
    files = [data for name, data in channel.segments.items() if name.startswith("segments/")]
    found = [event for data in files for event in read_segment(io.BytesIO(data))]
    return [event for event in found if event.kind != "account"]


def test_while_an_upload_hangs_alarms_go_events_are_stored_and_the_cap_is_kept(
    tmp_path: Path,
) -> None:
    with hanging(tmp_path) as (spool, channel):
        spool.tell(Alarm(rule="warm", message="too warm"))
        eventually(lambda: channel.hot)
        safe = threading.Event()
        spool.keep(metric(1.0), lambda kept: safe.set() if kept else None)
        eventually(safe.is_set)

        noise = random.Random(1).randbytes(2000)

        def full() -> int:
            spool.put([new_event(Metric(name=noise.hex(), value=1.0)) for _ in range(100)])
            spool.intake.wake()
            return spool.dropped

        eventually(full)
        assert spool.used_bytes <= CAP
        assert channel.segments == {}


def test_a_hanging_upload_lets_the_spool_end_in_time_and_loses_nothing(tmp_path: Path) -> None:
    with hanging(tmp_path) as (spool, channel):
        eventually(lambda: spool.stop(1.0))
        assert channel.segments == {}
    back = MemoryChannel()
    spool = on_device(tmp_path, back)
    spool.recover()
    spool.finish()
    spool.close()
    assert len(received(back)) == 1


def test_a_device_that_was_off_for_ninety_days_sends_all_and_the_newest_alarm_first(
    tmp_path: Path,
) -> None:
    clock, channel = Clock(), MemoryChannel()
    now = Calendar(datetime(2026, 8, 1, tzinfo=UTC))

    def booted() -> Spool:
        syncing = partial(Sync, now=now.stamp)
        spool = Spool(
            tmp_path,
            channel,
            device="cam-07",
            max_bytes=CAP,
            clock=clock,
            now=now,
            syncing=syncing,
        )
        spool.recover()
        return spool

    channel.fails = UnavailableError("away")
    spool = booted()
    sent = [metric(float(number)) for number in range(100)]
    spool.put(sent)
    for rule in ("first", "second"):
        spool.tell(Alarm(rule=rule, message="so"))
        spool.turn()
    spool.close()
    clock.now = 0.0  # the monotonic clock begins anew with the machine
    now.moment += timedelta(days=90)
    channel.fails = None
    spool = booted()
    spool.tell(Alarm(rule="now", message="so"))
    spool.finish()
    spool.close()
    rules = [data.rule for data in (e.payload() for e in channel.hot) if isinstance(data, Alarm)]
    assert rules == ["now", "second", "first"]
    assert sorted(e.id for e in received(channel)) == sorted(e.id for e in sent)


@pytest.mark.parametrize("years", [-40, 40])
def test_a_clock_that_jumps_years_keeps_the_span_and_loses_nothing(
    tmp_path: Path, years: int
) -> None:
    clock, channel = Clock(), MemoryChannel()
    now = Calendar(datetime(2026, 8, 1, 12, tzinfo=UTC))
    spool = Spool(
        tmp_path,
        channel,
        device="cam-07",
        max_bytes=CAP,
        clock=clock,
        now=now,
        syncing=partial(Sync, now=now.stamp),
    )
    nightly = SyncPolicy(spans=(Span(start="02:00", end="03:00"),))
    spool.follow(Release(telemetry=TelemetryPolicy(sync=nightly, segment_max_age_s=1)))
    spool.put([metric(1.0)])
    for _ in range(3):
        clock.now += 10
        spool.turn()
    assert (received(channel), spool.sync.state.why) == ([], "span")
    now.moment = now().replace(year=now().year + years, hour=2)
    clock.now += 10
    spool.put([metric(2.0)])
    spool.turn()
    spool.close()
    assert len(received(channel)) == 2
