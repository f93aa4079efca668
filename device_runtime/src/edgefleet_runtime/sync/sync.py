"""The sync: what a device sends of what its spool kept, and when.

Rules kept here:

- Alarms and health events go at any time, the newest first. The rest goes when the policy's spans
  and the link allow it, and no faster than the policy says.
- Nothing waits for the network but threads that have nothing else to do: the thread that owns the
  store gives them work each turn, and hears how it went. The store is that thread's alone.
- What was taken is forgotten after it was taken, never before. Dying in between sends it again,
  with the same names, bytes and ids: the receiving side knows it by them.
- A sample's files go ahead of the segment that names them; other samples' files go when no segment
  is due, so that large ones don't keep small events waiting.
- Nothing is dropped here. What is refused waits, hot and cold apart. What was taken and can't be
  forgotten, because the disk fails, isn't sent again by this process.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.faults import point
from edgefleet_runtime.sync.cold import fitting, named_by, sample_parcel, segment_parcel
from edgefleet_runtime.sync.hot import MAX_EVENTS, chosen, first_bytes, fitted, message_bytes
from edgefleet_runtime.sync.lane import Lane, Stride, at_once
from edgefleet_runtime.sync.pace import Pace
from edgefleet_runtime.sync.when import Metered, in_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.sync.cold import Parcel
    from edgefleet_runtime.sync.lane import Start, Why
    from edgefleet_runtime.sync.outgoing import Files, Outgoing

_log = logging.getLogger(__name__)

LEAST_BATCH_BYTES = 128 << 10  # before compression: some 20 KB on the wire


class SyncState(NamedTuple):
    """How far the sync is."""

    why: Why | None = None
    """What telemetry waits for, or would; None while nothing holds it up."""
    delivered: float | None = None
    """When something was last taken, in seconds since 1970 by the device's clock."""
    files: int = 0
    """Files delivered since the process started."""
    bytes: int = 0
    """Bytes in them."""
    hot: int = 0
    """Alarms and health events delivered since then."""


class Sync:
    """Sends what a store keeps.

    Args:
        channel: takes it.
        outgoing: the store, asked in its own thread alone.
        samples: the files of samples.
        clock: monotonic seconds.
        metered: whether the link is: ``yes``, ``no`` or a file that says so.
        now: seconds since 1970.
        start: runs work that may take long; a device gives `in_thread`.
        pause: waits so many seconds; None waits until the end of the process at most.
    """

    def __init__(
        self,
        channel: Channel,
        outgoing: Outgoing,
        samples: Files,
        clock: Callable[[], float] = time.monotonic,
        *,
        metered: str = "no",
        now: Callable[[], float] = time.time,
        start: Start = at_once,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self.state = SyncState()
        self.wake: Callable[[], None] = lambda: None
        """Called by another thread when there is something to do in a turn."""
        self._channel, self._outgoing, self._samples = channel, outgoing, samples
        self._clock, self._now = clock, now
        self._metered = Metered(metered, clock)
        self._policy = TelemetryPolicy()
        self._closing = threading.Event()
        self._moved = threading.Event()
        self._deadline = math.inf
        self._pace = Pace(clock, pause or self._closing.wait, self._refusal)
        channel.opened = self._pace.open
        hot = Stride(first_bytes(channel), channel.hot_max_bytes)
        cold = Stride(LEAST_BATCH_BYTES, self._policy.segment_max_bytes)
        lane = partial(Lane, clock=clock, start=start, moved=self._has_moved)
        self._hot, self._cold = lane("sync-hot", hot), lane("sync-cold", cold)
        self._told: set[int] = set()  # hot events that were taken, and not forgotten yet
        self._taken: set[str] = set()  # segments, likewise
        self._numbers: list[int] = []
        self._lean = False
        self._delivered: deque[Parcel] = deque()

    # ------------------------------------------------------------------------- from other threads

    def stop_within(self, seconds: float) -> None:
        """Let the last turn end in so many seconds, whatever is under way then."""
        self._deadline = self._clock() + seconds
        self._moved.set()

    def follow(self, policy: TelemetryPolicy) -> None:
        """Send from now on as a policy asks."""
        self._policy = policy
        self._pace.limit(policy.sync.max_bytes_per_s)
        self._cold.stride.most = policy.segment_max_bytes

    # ---------------------------------------------------------------------- in the store's thread

    def turn(self, finish: bool) -> None:  # noqa: FBT001 - as the spool calls it
        """Take note of what was taken, and let the next things go; waits for nothing.

        Args:
            finish: wait until nothing is left that can go now, or for `stop_within`.
        """
        if finish:
            self._finish()
        else:
            self._settle()
            self._begin()
            while self._hot.ended or self._cold.ended:
                self._settle()
                self._begin()
        self._tell()

    def _finish(self) -> None:
        for lane in (self._hot, self._cold):
            lane.hasten()
        while True:
            self._moved.clear()
            self._settle()
            self._begin(everything=True)
            if not (self._hot.busy or self._cold.busy):
                return
            left_s = self._deadline - self._clock()
            if left_s <= 0:
                self._closing.set()
                _log.info("telemetry is still on its way: it is sent again after the next start")
                return
            self._moved.wait(min(left_s, threading.TIMEOUT_MAX))

    def _settle(self) -> None:
        if self._hot.settle():
            self._told.update(self._numbers)
            self._outgoing.hot_sent(self._numbers)
            self._count(hot=len(self._numbers))
        progress = self._forget()
        self._cold.settle(progress=progress)
        self._forget()  # what came between the two

    def _begin(self, *, everything: bool = False) -> None:
        if self._hot.free:
            self._begin_hot()
        if self._cold.free and self._hold() is None:
            self._begin_cold(everything=everything)

    def _begin_hot(self) -> None:
        room = message_bytes(self._channel, self._hot.stride.bytes)
        found = self._outgoing.hot(MAX_EVENTS, room)
        again = self._told.intersection(number for number, _ in found)
        if again:
            self._outgoing.hot_sent(again)
        self._told = again
        waiting = chosen([each for each in found if each[0] not in again], room)
        if not waiting:
            return
        most = message_bytes(self._channel, self._channel.hot_max_bytes)
        self._numbers = [number for number, _ in waiting]
        self._hot.begin(partial(self._send_hot, [fitted(event, most) for _, event in waiting]))

    def _begin_cold(self, *, everything: bool) -> None:
        self._lean = self._policy.sync.metered == "lean" and self._metered.now()
        room = self._cold.stride.bytes
        batch = self._outgoing.batch(room, lean=self._lean, everything=everything)
        samples = None if self._lean or not self._samples.used_bytes else self._samples
        if batch is None:
            self._taken.clear()
            kept = [] if samples is None else samples.waiting()
            files = fitting((sample_parcel(self._samples, path) for path in kept), room)
            if files:
                self._cold.begin(partial(self._upload, files))
            return
        segments = [segment_parcel(self._outgoing, batch, one) for one in batch.segments]
        left = [one for one in segments if one.name not in self._taken]
        for one in segments:
            if one.name in self._taken:
                one.forget()
        if left:
            # Looked for after the batch was made: a file is kept before the event that names it.
            self._cold.begin(
                lambda: self._upload([*(named_by(left, samples) if samples else ()), *left])
            )

    def _forget(self) -> bool:
        """Have the store forget what was taken; returns whether anything was."""
        found = False
        while self._delivered:
            parcel = self._delivered.popleft()
            self._taken.add(parcel.name)
            parcel.forget()
            point("sync.forgotten")
            self._count(files=1, size=parcel.size)
            found = True
        return found

    # ------------------------------------------------------------------------------ what may go

    def _hold(self) -> Why | None:
        """Why no file may go now."""
        sync = self._policy.sync
        if sync.metered == "alarms" and self._metered.now():
            return "metered"
        return None if in_span(sync.spans, self._now()) else "span"

    def _refusal(self) -> str | None:
        """Why an upload that has begun may not go on; a span that ends lets it."""
        if self._closing.is_set():
            return "the process ends"
        allowed = self._policy.sync.metered
        if allowed == "all" or (allowed == "lean" and self._lean) or not self._metered.now():
            return None
        return "the link has become a metered one"

    # -------------------------------------------------------------------- in threads of their own

    def _send_hot(self, events: Sequence[Event]) -> None:
        self._channel.send_hot(events)
        point("sync.told")

    def _upload(self, parcels: Iterable[Parcel]) -> None:
        for parcel in parcels:
            self._pace.check()
            before = self._pace.taken
            point("sync.uploading")
            self._channel.upload(parcel.name, parcel.path)
            point("sync.uploaded")
            self._delivered.append(parcel)
            self._has_moved()
            if not self._channel.paced:
                # A channel that opens files by itself makes up for it here.
                self._pace.spend(max(0, parcel.size - (self._pace.taken - before)))

    def _has_moved(self) -> None:
        self._moved.set()
        self.wake()

    # --------------------------------------------------------------------------------- accounting

    def _count(self, *, files: int = 0, size: int = 0, hot: int = 0) -> None:
        state = self.state
        self.state = state._replace(
            delivered=self._now(),
            files=state.files + files,
            bytes=state.bytes + size,
            hot=state.hot + hot,
        )

    def _tell(self) -> None:
        hot, cold = self._hot.why, self._cold.why
        why = "access" if "access" in {hot, cold} else hot or self._hold() or cold
        self.state = self.state._replace(why=why)
