"""The vessel's device: the real spool, sync, sketches, windows and alarms, by a clock of ours.

Nothing of the runtime is replaced here but time, the model's answers and the link. Readings go
through the rules of the policy, answers into sketches, and an event of each container and minute
into the spool.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from vessel_cargo import DEPARTURE, MINUTES, VIBRATION_FAULT
from vessel_events import (
    BUNDLE,
    MODEL,
    STREAM,
    VERSION,
    predictions_of,
    readings_of,
    reference_of,
    request_of,
)
from vessel_sentry import folder_bytes, memory_bytes

from edgefleet.errors import UnavailableError
from edgefleet.protocol.documents import to_builtins
from edgefleet.protocol.event import new_event
from edgefleet.protocol.policy import AlarmRule, DriftPolicy, TelemetryPolicy, WindowRule
from edgefleet.protocol.release import Release, ReleaseModel
from edgefleet_runtime.channels.file import FileChannel
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.sync.sync import Sync
from edgefleet_runtime.watch.alarms import Alarms
from edgefleet_runtime.watch.sketching import Sketcher
from edgefleet_runtime.watch.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from vessel_cargo import Cargo, Day

    from edgefleet.protocol.event import Event, Window
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.spool.samples import SampleFiles
    from edgefleet_runtime.sync.outgoing import Outgoing
    from edgefleet_runtime.watch.seen import Watcher

DEVICE, GROUP = "mv-aurora", "ships"
CAP_A_DAY = (256 << 20) / 90  # bytes: 256 MB for ninety days
BREAKS_AFTER = 7  # things that the link takes in port before it fails once, having taken one

DRIFT = DriftPolicy(window_s=86_400.0)
POLICY = TelemetryPolicy(
    windows=(WindowRule(name="watch", stream=STREAM, size_s=4 * 3600.0),),
    alarms=(
        AlarmRule(
            name="compressor",
            stream=STREAM,
            when=f"values.vibration > {VIBRATION_FAULT}",
            needs=3,
            within=5,
            clear="values.vibration < 4.5",
            clear_after=3,
            severity="critical",
        ),
    ),
    drift=DRIFT,
)


class Clock:
    """The device's clocks: they show what they are set to."""

    def __init__(self) -> None:
        self.at = 0.0
        """Seconds since the departure."""

    def monotonic(self) -> float:
        """Monotonic seconds."""
        return self.at

    def now(self) -> float:
        """Seconds since 1970."""
        return DEPARTURE + self.at

    def moment(self) -> datetime:
        """The same as a date."""
        return datetime.fromtimestamp(self.now(), UTC)


class Link(FileChannel):
    """The file channel of a ship: nothing gets through at sea.

    In port it works, and every so often fails after it has taken something, so that the ship can't
    know and sends it again.
    """

    in_port = False
    repeated = 0
    """How many deliveries the ship took for failed."""
    _taken = 0

    def send_hot(self, events: Sequence[Event]) -> None:
        self._need_port()
        super().send_hot(events)
        self._break_sometimes()

    def upload(self, name: str, path: Path) -> None:
        self._need_port()
        super().upload(name, path)
        self._break_sometimes()

    def _need_port(self) -> None:
        if not self.in_port:
            raise UnavailableError("no link at sea")

    def _break_sometimes(self) -> None:
        self._taken += 1
        if self._taken % BREAKS_AFTER == 0:
            self.repeated += 1
            raise UnavailableError("the link broke before the answer came")


class Hour(NamedTuple):
    """What the device looked like at the end of an hour.

    Attributes:
        day: days since the departure, with their fraction.
        folder_bytes: all files of the spool's folder.
        waiting: events that wait to be sent, by shelf.
        dropped: events that had to go so far, likewise.
        memory_bytes: of this process.
    """

    day: float
    folder_bytes: int
    waiting: dict[str, int]
    dropped: dict[str, int]
    memory_bytes: int


class Ship:
    """One device on one voyage.

    Args:
        cargo: what it carries.
        folder: its disk.
        outbox: where what it sends comes ashore.

    Attributes:
        events: how many went into the spool so far, sketches not counted.
        event_bytes: of their data, without envelopes.
        folder: of the spool.
        reference: sketches of what was usual before the departure.
    """

    def __init__(self, cargo: Cargo, folder: Path, outbox: Path) -> None:
        self.cap_bytes = round(CAP_A_DAY * cargo.days)
        self.clock = Clock()
        self.link = Link(folder / "pointer.json", outbox)
        self.reference = reference_of(cargo.calibration())
        self.events = self.event_bytes = 0
        self._cargo = cargo
        self.folder = folder / "spool"
        self.spool = Spool(
            self.folder,
            self.link,
            device=DEVICE,
            max_bytes=self.cap_bytes,
            clock=self.clock.monotonic,
            now=self.clock.moment,
            syncing=self._syncing,
        )
        self._closed: list[Window] = []
        self._watch = self._parts(folder)
        self.spool.recover()
        model = ReleaseModel(name=MODEL, version=VERSION, bundle=BUNDLE)
        release = Release(models=(model,), telemetry=POLICY)
        self.spool.follow(release)
        for part in self._watch:
            part.follow(release)

    def sail(self) -> Iterator[Hour]:
        """The whole voyage, an hour at a time."""
        for number in range(self._cargo.days):
            day = self._cargo.day(number)
            for hour in range(24):
                self._live(day, range(60 * hour, 60 * hour + 60))
                yield self._hour()

    def unload(self) -> Iterator[Hour]:
        """Everything goes ashore, a minute at a time; then the device stops."""
        self.link.in_port = True
        for part in self._watch:
            part.close()
        while self.spool.pending:
            self.clock.at += 60.0
            self._turn()
            yield self._hour()
        self.spool.finish()
        yield self._hour()
        self.spool.close()

    def _syncing(
        self,
        channel: Channel,
        outgoing: Outgoing,
        samples: SampleFiles,
        clock: Callable[[], float],
    ) -> Sync:
        """The sync, whose threads' work is done at once: no time of ours passes meanwhile."""
        return Sync(
            channel,
            outgoing,
            samples,
            clock=clock,
            now=self.clock.now,
            start=lambda _name, work: work(),
        )

    def _parts(self, folder: Path) -> tuple[Watcher, ...]:
        """Those that watch, as a node has them."""
        plain = {name: to_builtins(sketch) for name, sketch in self.reference.items()}
        sketcher = Sketcher(
            self.spool,
            lambda _bundle, _variant: plain,
            folder / "sketches",
            clock=self.clock.monotonic,
            now=self.clock.now,
        )
        windows = Windows(self._closed.append, self.spool.tell)
        alarms = Alarms(
            act=lambda _rule, _event: None,
            keep=lambda event: self._put([event]),
            tell=self.spool.tell,
        )
        return sketcher, windows, alarms

    def _live(self, day: Day, minutes: range) -> None:
        """Let an hour pass: what is read and answered, each minute; then what it became."""
        for minute in minutes:
            self.clock.at = 60.0 * (day.number * MINUTES + minute)
            request = request_of(day, minute, self.clock.at)
            for part in self._watch:
                part.see(request)
            for heard in readings_of(day.features[minute], self.clock.now(), self.clock.at):
                for part in self._watch:
                    part.hear(heard)
        self.clock.at += 60.0
        self._put(predictions_of(day, minutes))
        self._turn()

    def _turn(self) -> None:
        for part in self._watch:
            part.turn(self.clock.at, self.clock.now())
        if self._closed:
            when = self.clock.moment()
            self._put([new_event(window, time=when) for window in self._closed])
            self._closed.clear()
        self.spool.turn()

    def _put(self, events: list[Event]) -> None:
        self.spool.put(events)
        self.events += len(events)
        self.event_bytes += sum(len(event.data) for event in events)

    def _hour(self) -> Hour:
        spool = self.spool
        return Hour(
            self.clock.at / 86_400,
            folder_bytes(self.folder),
            spool.waiting,
            spool.dropped_by_shelf,
            memory_bytes(),
        )
