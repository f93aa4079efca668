"""A sync over a store that a test fills, with time that passes when the test says so."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Collection
from datetime import date
from pathlib import Path
from typing import Any

from device_runtime.tests.support import Clock, MemoryChannel
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Alarm, Event, HealthEvent, Metric, Sample, new_event
from edgefleet.protocol.policy import Span, SyncPolicy, TelemetryPolicy
from edgefleet.protocol.segment import SegmentName, read_segment, write_segment
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.spool.samples import SampleFiles
from edgefleet_runtime.sync.lane import at_once
from edgefleet_runtime.sync.outgoing import Batch, Segment
from edgefleet_runtime.sync.sync import Sync

DAY = date(2026, 11, 21)
NOON = 1_795_262_400.0  # 2026-11-21T12:00:00Z


def alarm(rule: str, message: str = "too warm") -> Event:
    return new_event(Alarm(rule=rule, message=message))


def health(what: str) -> Event:
    return new_event(HealthEvent(what=what, message="so"))


def metric(value: float) -> Event:
    return new_event(Metric(name="load", value=value))


class Later:
    """In place of threads: work begins when a test says so."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, Callable[[], None]]] = deque()

    def __call__(self, name: str, work: Callable[[], None]) -> None:
        self.waiting.append((name, work))

    def run(self) -> str:
        name, work = self.waiting.popleft()
        work()
        return name


class MemoryStore:
    """Events in memory, segments in a folder, as `Outgoing` has them.

    Attributes:
        asked: what each new batch was asked for by.
        forgets: False: a disk that fails.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.alarms: dict[int, Event] = {}
        self.events: list[Event] = []
        self.under_way: Batch | None = None
        self.asked: list[dict[str, Any]] = []
        self.forgets = True
        self._numbers = 0

    def tell(self, *events: Event) -> None:
        for event in events:
            self._numbers += 1
            self.alarms[self._numbers] = event

    def hot(self, max_events: int, max_bytes: int) -> list[tuple[int, Event]]:
        newest = sorted(self.alarms.items(), key=lambda pair: (pair[1].kind != "alarm", -pair[0]))
        found: list[tuple[int, Event]] = []
        for number, event in newest[:max_events]:
            max_bytes -= len(encode(event))
            if found and max_bytes < 0:
                break
            found.append((number, event))
        return found

    def hot_sent(self, numbers: Collection[int]) -> None:
        for number in numbers if self.forgets else ():
            del self.alarms[number]

    def batch(self, max_bytes: int, *, lean: bool, everything: bool) -> Batch | None:
        if self.under_way is None:
            self.under_way = self._new(max_bytes, lean=lean)
            if self.under_way is not None:
                asked = {"max_bytes": max_bytes, "lean": lean, "everything": everything}
                self.asked.append(asked)
        return self.under_way

    def _new(self, max_bytes: int, *, lean: bool) -> Batch | None:
        chosen: list[Event] = []
        for event in self.events:
            if lean and event.kind in {"sample", "sketch"}:
                continue
            max_bytes -= len(encode(event))
            if chosen and max_bytes < 0:
                break
            chosen.append(event)
        if not chosen:
            return None
        self.events = [event for event in self.events if event not in chosen]
        name = SegmentName(day=DAY, device="cam-07", model="_none", id=chosen[0].id)
        path = self.root / f"{chosen[0].id}.ndjson.zst"
        with path.open("wb") as stream:
            count = write_segment(chosen, stream)
        return Batch((Segment(name.below_device, path, path.stat().st_size, count),))

    def sent(self, batch: Batch, name: str) -> None:
        assert self.under_way is not None
        if not self.forgets:
            return
        left = tuple(one for one in batch.segments if one.name != name)
        self.under_way = Batch(left) if left else None


class Rig:
    """A device's sync.

    Attributes:
        channel: what came there.
        store: what waits.
        clock: monotonic seconds.
        now: seconds since 1970.
        meanwhile: called whenever time passes.
    """

    def __init__(
        self,
        root: Path,
        *,
        channel: Channel | None = None,
        metered: str = "no",
        start: Callable[[str, Callable[[], None]], None] = at_once,
        waits: bool = False,
    ) -> None:
        """With ``waits``, pauses take real time, as on a device."""
        (root / "segments").mkdir(parents=True)
        self.store = MemoryStore(root / "segments")
        self.samples = SampleFiles(root, 1 << 30)
        self.memory = MemoryChannel()
        self.channel = channel or self.memory
        self.clock = Clock()
        self.now = NOON
        self._options: dict[str, Any] = {
            "metered": metered,
            "start": start,
            "pause": None if waits else self.pass_time,
        }
        self.restart()
        self.meanwhile: Callable[[], None] = lambda: None

    def restart(self) -> None:
        """A new process, over what the last one left."""
        self.sync = Sync(
            self.channel,
            self.store,
            self.samples,
            self.clock,
            now=lambda: self.now,
            **self._options,
        )

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.now += seconds
        self.meanwhile()

    def follow(self, *spans: tuple[str, str], **sync: Any) -> None:
        given = tuple(Span(start=start, end=end) for start, end in spans)
        self.sync.follow(TelemetryPolicy(sync=SyncPolicy(spans=given, **sync)))

    def turn(self, times: int = 1, *, after_s: float = 0.0) -> None:
        """Turns of the spool."""
        self.pass_time(after_s)
        for _ in range(times):
            self.sync.turn(False)

    def sample(self, data: bytes) -> Event:
        """Keep a sample: its file, then its event."""
        digest = self.samples.put(data)
        event = new_event(
            Sample(model="digits", model_version="1", reason="asked for", inputs={"x": digest})
        )
        self.store.events.append(event)
        return event

    @property
    def told(self) -> list[str]:
        """Rules of the alarms and names of the health events that came, in order."""
        return [
            data.rule if isinstance(data, Alarm) else data.what
            for data in (event.payload() for event in self.memory.hot)
            if isinstance(data, (Alarm, HealthEvent))
        ]

    @property
    def received(self) -> list[str]:
        """Ids of the events in the segments that came."""
        segments = {n: d for n, d in self.memory.segments.items() if n.startswith("segments/")}
        return [event.id for data in segments.values() for event in read_segment(io.BytesIO(data))]
