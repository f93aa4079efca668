"""The spool: a thread that turns answers into events, keeps them, and hands them to the channel.

Nothing here can slow or fail an answer. What is lost for lack of room is counted, over restarts
too, and told as a health event.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.event import HealthEvent, Prediction, new_event
from edgefleet_runtime.faults import point
from edgefleet_runtime.retry import RetryTimer
from edgefleet_runtime.spool.hot import HotQueue
from edgefleet_runtime.spool.intake import Intake
from edgefleet_runtime.spool.samples import SampleFiles
from edgefleet_runtime.spool.segments import SegmentFiles
from edgefleet_runtime.spool.summary import summarize
from edgefleet_runtime.store.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.protocol.event import Event, EventData
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.spool.intake import Answer

_log = logging.getLogger(__name__)

INTERVAL_S = 0.5  # between two turns, when there is no hurry
SLICE = 32  # answers that are recorded in one go, in about half a millisecond
PAUSE_S = 0.001  # between two slices
MAX_LEISURELY = 4096  # answers; more of them are recorded without a pause, or some would be dropped
TELL_LOSS_S = 60.0  # between two health events about lost events
COUNT_FILE = "dropped"


class Spool:
    """Telemetry of one device.

    Args:
        root: folder for what must survive.
        channel: takes hot events and segments.
        device: the device's name.
        max_bytes: cap of segments and samples on this disk; a release may ask for less.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        root: Path,
        channel: Channel,
        *,
        device: str,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.intake = Intake()
        self.used_bytes = 0
        self._channel = channel
        self._clock = clock
        self._max_bytes = max_bytes
        self._files = SegmentFiles(root, device=device, max_bytes=max_bytes, clock=clock)
        self.samples = SampleFiles(root, max_bytes // 2)
        self._cap = max_bytes
        self._kept: deque[tuple[Event, Callable[[bool], None]]] = deque()
        self._hot = HotQueue(root / "hot.ndjson")
        self._count_path = root / COUNT_FILE
        self.dropped = self._dropped_before()
        self._told_at: float | None = None
        self._told = self.dropped
        self._hot_retry, self._cold_retry = RetryTimer(clock), RetryTimer(clock)
        self._sample_retry = RetryTimer(clock)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="spool", daemon=True)

    # ------------------------------------------------------------------------- from other threads

    def follow(self, release: Release) -> None:
        """Record from now on what a release's policy asks for."""
        self.intake.policy = release.telemetry
        self._cap = min(release.settings.spool_max_bytes or self._max_bytes, self._max_bytes)
        self.samples.max_bytes = self._cap // 2
        self._share()

    def tell(self, data: EventData) -> None:
        """Send a hot event soon; it survives a crash until the channel has taken it."""
        self._hot.put(new_event(data))
        self.intake.wake()

    def keep(self, event: Event, done: Callable[[bool], None]) -> None:
        """Record an event that somebody asked for, whatever the policy says.

        Args:
            event: not a hot one.
            done: called once, in the spool's thread: True when it outlives the process.
        """
        self._kept.append((event, done))
        self.intake.wake()

    @property
    def pending(self) -> bool:
        """Whether something waits for the channel to take it."""
        return bool(self._hot.waiting() or self._files.closed() or self.samples.waiting())

    def start(self) -> None:
        """Begin to work in a thread of its own."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Keep, close and try to upload what there is; False when that takes longer."""
        self._stopping.set()
        self.intake.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        self.recover()
        while not self._stopping.is_set():
            self.intake.wait(INTERVAL_S)
            self._guarded(self.turn)
        self._guarded(self.finish)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - without this thread the device would go silent
            _log.exception("spool")

    def recover(self) -> None:
        """Take over what an earlier process left."""
        try:
            self._lose(self._files.recover())
        except OSError as error:
            _log.warning("spool: open segments can't be closed yet: %s", error)

    def turn(self) -> None:
        """Work through what has gathered: record, close, make room, send."""
        self._record()
        try:
            self._files.sync_due()
            self._lose(self._files.close_due(self.intake.policy))
        except OSError as error:
            _log.warning("spool: %s", error)
        self._share()
        self._lose(self._files.trim())
        self._tell_loss()
        self._measure()
        self._send_hot()
        self._upload_samples()
        self._upload()

    def finish(self) -> None:
        """The last turn of a process: nothing stays open."""
        self._record()
        try:
            self._lose(self._files.close_all())
        except OSError as error:
            _log.warning("spool: %s", error)
        self._share()
        self._lose(self._files.trim())
        for timer in (self._hot_retry, self._sample_retry, self._cold_retry):
            timer.reset()
        self._send_hot()
        self._upload_samples()
        self._upload()

    def _record(self) -> None:
        answers, dropped = self.intake.take()
        self._lose(dropped)
        kept = [self._kept.popleft() for _ in range(len(self._kept))]
        # Working off a second's answers without a pause would be felt by those who ask meanwhile.
        pause_s = PAUSE_S if len(answers) <= MAX_LEISURELY else 0.0
        for start in range(0, len(answers), SLICE):
            if start and pause_s:
                self._stopping.wait(pause_s)
            if not self._append([_event(answer) for answer in answers[start : start + SLICE]]):
                self._lose(len(answers[start + SLICE :]))
                break
        if kept:
            recorded = self._append([event for event, _ in kept])
            for _, done in kept:
                done(recorded)

    def _append(self, events: list[Event]) -> bool:
        """Record events; False when they are lost, which is counted."""
        try:
            self._lose(self._files.append(events))
        except OSError as error:
            _log.warning("spool: %d events lost: %s", len(events), error)
            self._lose(len(events))
            return False
        return True

    def _share(self) -> None:
        """Let segments have what samples leave of the cap."""
        self._files.max_bytes = max(self._cap - self.samples.used_bytes, self._cap // 2)

    def _measure(self) -> None:
        self.used_bytes = self._files.used_bytes() + self.samples.used_bytes

    def _send_hot(self) -> None:
        waiting = self._hot.waiting()
        if not waiting or self._hot_retry.due_in_s():
            return
        try:
            self._channel.send_hot(waiting)
        except EdgeFleetError as error:
            _log.info("%d hot events wait: %s", len(waiting), error.message)
            self._hot_retry.wait()
        else:
            self._hot.sent(len(waiting))
            self._hot_retry.reset()

    def _upload_samples(self) -> None:
        """Deliver the files of samples: ahead of the segments, whose events name them."""
        if self._sample_retry.due_in_s():
            return
        for path in self.samples.waiting():
            try:
                self._channel.upload(self.samples.name_of(path), path)
            except EdgeFleetError as error:
                _log.info("samples wait: %s", error.message)
                self._sample_retry.wait()
                return
            self.samples.remove(path)
            self._sample_retry.reset()

    def _upload(self) -> None:
        if self._cold_retry.due_in_s():
            return
        for segment in self._files.closed():
            try:
                self._channel.upload(segment.name, segment.path)
            except EdgeFleetError as error:
                _log.info("segments wait: %s", error.message)
                self._cold_retry.wait()
                return
            point("spool.uploaded")
            self._files.remove(segment)
            self._cold_retry.reset()
        self._measure()

    # --------------------------------------------------------------------------------- accounting

    def _lose(self, count: int) -> None:
        count += self._hot.dropped
        self._hot.dropped = 0
        if not count:
            return
        self.dropped += count
        try:
            write_durably(self._count_path, str(self.dropped).encode())
        except OSError as error:
            _log.warning("spool: %s", error)

    def _tell_loss(self) -> None:
        now = self._clock()
        recently = self._told_at is not None and now - self._told_at < TELL_LOSS_S
        if self.dropped == self._told or recently:
            return
        lost, self._told, self._told_at = self.dropped - self._told, self.dropped, now
        self.tell(
            HealthEvent(what="events-dropped", message=f"{lost} events lost for lack of room")
        )

    def _dropped_before(self) -> int:
        try:
            return int(self._count_path.read_bytes())
        except (FileNotFoundError, ValueError):
            return 0


def _event(answer: Answer) -> Event:
    return new_event(
        Prediction(
            model=answer.model,
            model_version=answer.version,
            bundle=answer.bundle,
            variant=answer.variant,
            outputs=summarize(answer.outputs, answer.values),
            latency_us=answer.latency_us,
            request=answer.request,
            trace=answer.trace,
        ),
        time=datetime.fromtimestamp(answer.time, UTC),
    )
