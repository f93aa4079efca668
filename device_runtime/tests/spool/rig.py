"""A spool's store by itself: what was put into it, what came out, and what must hold meanwhile."""

from __future__ import annotations

import io
import random
import shutil
import sqlite3
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from device_runtime.tests.support import Clock
from edgefleet.protocol.event import (
    Account,
    Alarm,
    Event,
    EventData,
    OutputSummary,
    Prediction,
    Reading,
    Sample,
    Window,
    new_event,
)
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.spool.departures import Departures
from edgefleet_runtime.spool.room import folder_bytes
from edgefleet_runtime.spool.samples import SampleFiles, blocks
from edgefleet_runtime.spool.store import Store
from edgefleet_runtime.sync.outgoing import Segment

DAY = datetime(2026, 11, 21, 12, tzinfo=UTC)
MIB = 1 << 20


def prediction(
    top: int = 0, score: float = 0.9, *, model: str = "digits", filler: int = 0
) -> Prediction:
    output = OutputSummary(name="y", shape=(1, 10), top=(top,), score=(score,))
    return Prediction(
        model=model,
        model_version="7",
        bundle="sha256:" + "0" * 64,
        variant="int8",
        outputs=(output,),
        latency_us=12.5,
        request="x" * filler,
    )


def window(number: int = 0) -> Window:
    end = DAY + timedelta(minutes=number)
    start = end - timedelta(minutes=1)
    return Window(rule="mean", start=start, end=end, count=60, values={}, stream="reefer")


def sample(number: int = 0) -> Sample:
    return Sample(model="digits", model_version="7", reason="hard", inputs={"x": f"{number:064x}"})


def alarm(message: str = "open") -> Alarm:
    return Alarm(rule="door", message=message)


def reading(value: float = 1.0) -> Reading:
    return Reading(stream="reefer", key="c-1", values={"t": value})


class Device:
    """A store below a folder, its clock, and everything that went in and out.

    Attributes:
        put: ids of what was handed over, with the kind of each.
        came: ids of what the other side got, with how often.
        accounts: the other side's, the newest of each spool and day.
        damaged: whether the database was, by a test.
    """

    def __init__(self, root: Path, max_bytes: int = MIB, *, seed: int = 0) -> None:
        self.clock = Clock()
        self.time = DAY
        self.max_bytes = max_bytes
        self.put_: dict[str, str] = {}
        self.came: Counter[str] = Counter()
        self.told: list[EventData] = []
        self.accounts: dict[tuple[str, str], Account] = {}
        self.policy = TelemetryPolicy()
        self.random = random.Random(seed)
        self._root = root
        self._lives = 0
        self.damaged = False
        self.root = root / "0"
        self.root.mkdir(parents=True)
        self.most = 0
        self.open()

    def open(self) -> None:
        samples = SampleFiles(self.root, self.max_bytes // 2)
        self.samples = samples
        self.store = Store(self.root, samples, max_bytes=self.max_bytes, clock=self.clock)
        self.store.follow(self.policy, self.max_bytes)
        self.outgoing = Departures(
            self.store, device="cam-07", now=lambda: self.time, clock=self.clock
        )
        self.store.recover()
        self.outgoing.recover()

    def event(self, data: EventData, time: datetime | None = None) -> Event:
        identity = f"{self.random.getrandbits(128):032x}"
        return new_event(data, time=time or self.time, identity=identity)

    def put(self, *data: EventData) -> list[bool]:
        events = [self.event(each) for each in data]
        return self.put_events(events)

    def put_events(self, events: list[Event]) -> list[bool]:
        self.put_ |= {event.id: event.kind for event in events}
        kept = self.store.put([self.store.rater.entry(event) for event in events])
        self.check()
        return kept

    def turn(self, after_s: float = 0.5, *, finish: bool = False) -> None:
        self.clock.now += after_s
        self.time += timedelta(seconds=after_s)
        self.store.turn(self.time.toordinal(), finish=finish)
        self.check()

    def killed(self, *, torn: int | None = None) -> None:
        """Die with nothing done any more, and start again; ``torn`` bytes of the log are left."""
        self._lives += 1
        copied = self._root / str(self._lives)
        shutil.copytree(self.root, copied)
        self.store.close()
        shutil.rmtree(self.root)
        self.root = copied
        if torn is not None:
            log = copied / "spool.db-wal"
            log.write_bytes(log.read_bytes()[:torn])
        self.open()
        self.check()

    def send_hot(self, most: int = 100) -> list[Event]:
        hot = self.outgoing.hot(most, 1 << 20)
        for _, event in hot:
            self._took(event)
        self.outgoing.hot_sent([number for number, _ in hot])
        self.check()
        return [event for _, event in hot]

    def send(self, *, segments: int = 1000, everything: bool = True, lean: bool = False) -> int:
        """Send some segments of the batch; returns how many."""
        batch = self.outgoing.batch(4 << 20, lean=lean, everything=everything)
        self.check()
        done = batch.segments[:segments] if batch is not None else ()
        for segment in done:
            self.upload(segment)
            assert batch is not None
            self.outgoing.sent(batch, segment.name)
            self.check()
        return len(done)

    def upload(self, segment: Segment) -> None:
        data = segment.path.read_bytes()
        assert len(data) == segment.size
        events = list(read_segment(io.BytesIO(data)))
        assert len(events) == segment.events
        for event in events:
            self._took(event)

    def drain(self) -> None:
        """Send everything there is."""
        while self.send_hot():
            pass
        while self.send():
            pass

    def _took(self, event: Event) -> None:
        data = event.payload()
        if isinstance(data, Account):
            key = (data.spool, data.day)
            if key not in self.accounts or self.accounts[key].number < data.number:
                self.accounts[key] = data
            return
        self.came[event.id] += 1
        self.told.append(data)

    def check(self) -> None:
        """What must hold at every moment."""
        lengths = [path.stat().st_size for path in self.store.samples.waiting()]
        used = folder_bytes(self.root) - sum(lengths) + sum(map(blocks, lengths))
        self.most = max(self.most, used)
        assert used <= self.store.budget.cap
        assert self.store.used_bytes == used
        if self.store.database is not None:
            try:
                unaccounted = self.unaccounted()
            except sqlite3.DatabaseError as error:
                assert self.damaged, "whole until now"
                self.store.trouble(error)  # as whoever else reads what nobody had read yet
                unaccounted = self.unaccounted()
            assert unaccounted == {}
            assert self.promised() <= 0

    def promised(self) -> int:
        """Bytes over the cap if samples took what they may and every other share were full."""
        store, database, samples = self.store, self.store.database, self.samples
        assert database is not None
        if samples.max_bytes <= samples.used_bytes:
            return 0  # nothing is promised
        shares = store.budget.log_bytes + store.budget.outgoing_bytes
        return shares + database.pages * database.page + samples.max_bytes - store.budget.cap

    def unaccounted(self) -> dict[int, int]:
        """Tallies whose events are not all waiting, on their way, sent or dropped."""
        assert self.store.database is not None
        sql = self.store.database.read
        off: Counter[int] = Counter(
            dict(sql.execute("SELECT id, seen - dropped - sent FROM tally").fetchall())
        )
        off.subtract(
            dict(sql.execute("SELECT tally, sum(events) FROM leaving_tally GROUP BY 1").fetchall())
        )
        for part in self.store.parts:
            held = sql.execute(f"SELECT tally, count(*) FROM {part.table} GROUP BY 1").fetchall()
            assert sum(count for _, count in held) == part.events
            off.subtract(dict(held))
        return {tally: count for tally, count in off.items() if count and tally}

    def counted(self, kind: str) -> tuple[int, int]:
        """What the newest accounts say of a kind: seen and dropped."""
        tallies = [t for a in self.accounts.values() for t in a.tallies if t.kind == kind]
        return sum(t.seen for t in tallies), sum(t.dropped for t in tallies)

    def arrived(self, kind: str) -> int:
        """How many events of a kind arrived."""
        return sum(self.put_.get(identity) == kind for identity in self.came)
