"""The spool: a thread that turns answers into events, keeps them, and hands them to the channel.

Nothing here can slow or fail an answer. What is lost for lack of room is counted, over restarts
too, and told as a health event.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.protocol.event import Event, HealthEvent, Prediction, new_event
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.rules.filters import Filters
from edgefleet_runtime.serve.summary import summarize
from edgefleet_runtime.spool.departures import Departures
from edgefleet_runtime.spool.inbox import Handed, Inbox
from edgefleet_runtime.spool.intake import Intake
from edgefleet_runtime.spool.leisure import Leisure
from edgefleet_runtime.spool.samples import SampleFiles
from edgefleet_runtime.spool.store import Store
from edgefleet_runtime.sync.sync import Sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from edgefleet.protocol.event import EventData
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.spool.intake import Answer
    from edgefleet_runtime.spool.rating import Entry
    from edgefleet_runtime.sync.outgoing import Outgoing

    Syncing = Callable[[Channel, Outgoing, SampleFiles, Callable[[], float]], Sync]

_log = logging.getLogger(__name__)

INTERVAL_S = 0.5  # between two turns, when there is no hurry: what a power cut may cost
TELL_LOSS_S = 60.0  # between two health events about lost events
SENDING = 0.8  # share of the time to stop in that may be spent on sending
MAX_HOT = 1024  # alarms and health events on their way into the store


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Spool:
    """Telemetry of one device.

    Attributes:
        used_bytes: length of all files in the folder, as of the last turn.
        waiting: events on the disk by shelf, likewise.
        dropped: events that had to go, ever, likewise.
        dropped_by_shelf: the same by the shelf that had no room for them.

    Args:
        root: folder for what must survive.
        channel: takes hot events and segments.
        device: the device's name.
        max_bytes: cap of everything in the folder; a release may ask for less.
        clock: monotonic seconds.
        now: the time by the device's clock.
        syncing: makes what decides when to send.
    """

    def __init__(
        self,
        root: Path,
        channel: Channel,
        *,
        device: str,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
        syncing: Syncing = Sync,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.intake = Intake()
        self.used_bytes = 0
        self.waiting: dict[str, int] = {}
        self.dropped = 0
        self.dropped_by_shelf: dict[str, int] = {}
        self.samples = SampleFiles(root, max_bytes // 2)
        self.store = Store(root, self.samples, max_bytes=max_bytes, clock=clock)
        self._stopping = threading.Event()
        self._leisure = Leisure(lambda: self._hurried, self._stopping.wait)
        self.outgoing = Departures(
            self.store, device=device, now=now, clock=clock, leisure=self._leisure
        )
        self.sync = syncing(channel, self.outgoing, self.samples, clock)
        self.sync.wake = self.intake.wake
        self._clock, self._now = clock, now
        self._max_bytes = max_bytes
        self._filters = Filters(TelemetryPolicy(), self.tell)
        self._hot = Inbox(max_items=MAX_HOT)
        self._cold = Inbox()
        self._told_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)
        self._measure()
        self._told = self.dropped

    # ------------------------------------------------------------------------- from other threads

    def follow(self, release: Release) -> None:
        """Record from now on what a release's policy asks for."""
        self.intake.policy = release.telemetry
        self._filters = Filters(release.telemetry, self.tell)
        cap = min(release.settings.spool_max_bytes or self._max_bytes, self._max_bytes)
        self.store.follow(release.telemetry, cap)
        self.sync.follow(release.telemetry)

    def tell(self, data: EventData | Event) -> None:
        """Send a hot event soon; it survives a crash as soon as the spool's thread has woken."""
        event = data if isinstance(data, Event) else new_event(data, time=self._now())
        self._hot.put([Handed(event)])
        self.intake.wake()

    def put(self, events: Iterable[Event]) -> int:
        """Record events, whatever the policy says; they are kept by worth.

        Returns:
            How many there was no room for on the way, which are counted as dropped.
        """
        return self._cold.put([Handed(event) for event in events])

    def keep(self, event: Event, done: Callable[[bool], None]) -> None:
        """Record an event that somebody asked for, and tell when it is safe.

        Args:
            event: not a hot one.
            done: called once, in the spool's thread: True when it outlives the process.
        """
        self._cold.put([Handed(event, done)])
        self.intake.wake()

    @property
    def max_bytes(self) -> int:
        """Cap of everything in the folder."""
        return self.store.budget.cap

    @property
    def pending(self) -> bool:
        """Whether something waits for the channel to take it."""
        return bool(self.outgoing.pending or self.samples.used_bytes)

    def start(self) -> None:
        """Begin to work in a thread of its own."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Keep and try to send what there is; False when that takes longer."""
        self._stopping.set()
        self.sync.stop_within(timeout_s * SENDING)
        self.intake.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Let another open the folder. The thread must have ended."""
        self.store.close()

    # ------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        self._guarded(self.recover)
        due = time.monotonic() + INTERVAL_S
        while not self._stopping.is_set():
            crowded = self.intake.wait(max(due - time.monotonic(), 0.0))
            if crowded or time.monotonic() >= due:
                self._guarded(self.turn)
                due = time.monotonic() + INTERVAL_S
            else:
                self._guarded(self.hasten)
        self._guarded(self.finish)
        self._guarded(self.close)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - without this thread the device would go silent
            _log.exception("spool")

    def recover(self) -> None:
        """Take over what an earlier process left."""
        self.store.recover()
        self.outgoing.recover()

    def turn(self) -> None:
        """Work through what has gathered: record, make room, send."""
        self._work(finish=False)

    def hasten(self) -> None:
        """Record and send what can't wait for the next turn.

        Answers do wait: a new release tells much at once, and making events of answers then would
        be felt by those who ask meanwhile.
        """
        self._take(self._hot)
        self._take(self._cold)
        self.sync.turn(finish=False)
        self._measure()

    def finish(self) -> None:
        """The last turn of a process: everything is to be sent that can be."""
        self._stopping.set()  # nobody is answered any more: no pauses
        self._work(finish=True)

    def _work(self, *, finish: bool) -> None:
        self._take(self._hot)
        self._record()
        self._take(self._cold)
        self.store.turn(self._now().toordinal(), finish=finish)
        self._tell_damage()
        self._tell_loss()
        self._tell_samples()
        self._take(self._hot)
        self.sync.turn(finish)
        if finish:
            self.store.turn(self._now().toordinal(), finish=True)
        self._measure()

    @property
    def _hurried(self) -> bool:
        # News of the device does wait for pauses: without them a swap, of which there is much to
        # tell, would be felt by those who ask meanwhile.
        return self.intake.crowded or self._hot.holds("alarm") or self._stopping.is_set()

    def _record(self) -> None:
        answers, dropped = self.intake.take()
        today = self._now().toordinal()
        for model, count in dropped.items():
            self.store.lose("prediction", model, today, count)
        found = map(self._entry, self._leisure.through(answers))
        self.store.put([entry for entry in found if entry is not None])

    def _take(self, inbox: Inbox) -> None:
        taken = inbox.take()
        for (kind, model, day), count in taken.refused.items():
            self.store.lose(kind, model, day, count)
        for done in taken.waiting:
            done(False)
        kept = self.store.put([self.store.rater.entry(item.event) for item in taken.items])
        for item, safe in zip(taken.items, kept, strict=True):
            if item.done is not None:
                item.done(safe)

    def _entry(self, answer: Answer) -> Entry | None:
        """What is recorded of an answer; None where the policy's rules let none of it pass."""
        outputs = summarize(answer.outputs, answer.values)
        prediction = Prediction(
            model=answer.model,
            model_version=answer.version,
            bundle=answer.bundle,
            variant=answer.variant,
            outputs=outputs,
            latency_us=answer.latency_us,
            request=answer.request,
            trace=answer.trace,
        )
        if not self._filters.passes(prediction):
            return None
        event = new_event(prediction, time=datetime.fromtimestamp(answer.time, UTC))
        return self.store.rater.entry(event, outputs)

    def _measure(self) -> None:
        self.used_bytes = self.store.used_bytes
        self.waiting = self.store.waiting
        self.dropped_by_shelf = self.store.dropped
        self.dropped = sum(self.dropped_by_shelf.values())

    # --------------------------------------------------------------------------------- accounting

    def _tell_loss(self) -> None:
        self._measure()
        now = self._clock()
        recently = self._told_at is not None and now - self._told_at < TELL_LOSS_S
        if self.dropped == self._told or recently:
            return
        lost, self._told, self._told_at = self.dropped - self._told, self.dropped, now
        message = f"{lost} events lost for lack of room"
        if self.store.too_large:
            message += f", {self.store.too_large} of them too large to be kept at all"
            self.store.too_large = 0
        self.tell(HealthEvent(what="events-dropped", message=message))

    def _tell_samples(self) -> None:
        gone, self.samples.gone = self.samples.gone, 0
        if gone:
            message = f"{gone} files of samples lost to a smaller cap"
            self.tell(HealthEvent(what="samples-dropped", message=message))

    def _tell_damage(self) -> None:
        repairs, self.store.repairs = self.store.repairs, []
        for repair in repairs:
            lost = "what was lost can't be told" if repair.lost is None else f"{repair.lost} lost"
            message = f"the spool was damaged on the disk: {repair.saved} events saved, {lost}"
            self.tell(HealthEvent(what="spool-damaged", message=message))
            self.outgoing.recover()
