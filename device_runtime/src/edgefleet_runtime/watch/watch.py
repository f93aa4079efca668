"""The watch: one thread that hands requests and readings to the parts that look at them.

Rules kept here:

- Each part is called in this thread alone, in the order in which it was given, and for each item
  before the next one. What looks first (`edgefleet_runtime.watch.first.First`) is no such part:
  all that has come is judged there before any part is called for the next item.
- A part that raises is left out for that item, counted and told of once a release: the others, and
  serving, go on.
- A release's policy counts from the first request on that it served.
- What wasn't looked at for lack of room is counted, and told at most once a minute.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.serve.summary import summarize
from edgefleet_runtime.watch.facts import answered_values
from edgefleet_runtime.watch.guard import Guard
from edgefleet_runtime.watch.seen import Began, Followed, GoesOn, Heard, SeesAlarms, SeesCompared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet.protocol.event import EventData
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.watch.first import Item
    from edgefleet_runtime.watch.seen import Seen, Watcher
    from edgefleet_runtime.watch.tap import Tap

TURN_S = 0.5  # between two turns of the parts, at most
SLICE = 4  # items that are worked through in one go, in some 0.3 ms
PAUSE_S = 0.001  # between two slices, while there is no hurry
MANY = 1024  # slices in one go are worked through without a pause, or some would find no room
TELL_S = 60.0  # between two health events about what wasn't looked at


class Watch:
    """Parts that look at what a device does, and their thread.

    Args:
        tap: where requests and readings come from.
        parts: who looks at them, in this order; one that others go by comes first.
        tell: takes health events.
        drifted: names the features of a model that have moved.
        clock: monotonic seconds.
        now: seconds since 1970.
    """

    def __init__(
        self,
        tap: Tap,
        parts: Sequence[Watcher],
        *,
        tell: Callable[[EventData], object],
        drifted: Callable[[str], tuple[str, ...]] = lambda _: (),
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.skipped = 0
        """Requests and readings that weren't looked at for lack of room."""
        self._tap = tap
        self._parts = tuple(parts)
        self._tell_event = tell
        self._drifted = drifted
        self._clock = clock
        self._now = now
        self._policy = TelemetryPolicy()
        self._guard = Guard(tell)
        self._told = 0
        self._told_at: float | None = None
        self._turned = clock() - TURN_S
        self._more = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def failures(self) -> int:
        """Calls in which a part raised."""
        return self._guard.failures + self._tap.first.failures

    # ------------------------------------------------------------------------- from other threads

    def follow(self, release: Release) -> None:
        """Go by this release's policy for what is served from now on."""
        self._tap.follow(release)

    def attend(self) -> None:
        """Go on with the models that the table has by now."""
        self._tap.attend()

    def start(self) -> None:
        """Begin to work in a thread of its own."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Look at what waits, and let the parts hand over; False when that takes longer."""
        self._tap.close()
        self._stopping.set()
        self._tap.wake()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------------------ in the thread

    def _run(self) -> None:
        while not self._stopping.is_set():
            due_s = 0.0 if self._more else self._turned + TURN_S - self._clock()
            self._tap.wait(max(0.0, due_s))
            self.work()
        self.finish()

    def work(self) -> None:
        """Look at all that waits, do what is due by the clock, and a piece of what can wait."""
        slices = 0
        while self._look():
            slices += 1
            # Working through a backlog without a pause would be felt by those who ask meanwhile.
            if slices < MANY // SLICE and not self._tap.hurried:
                self._tap.wait(PAUSE_S)
            if self._clock() - self._turned >= TURN_S:
                self._turn()
        if self._clock() - self._turned >= TURN_S:
            self._turn()
        self._more = False
        for part in self._parts:
            if isinstance(part, GoesOn):
                self._guard(part, self._go_on, part)

    def _go_on(self, part: GoesOn) -> None:
        self._more = part.go_on() or self._more

    def finish(self) -> None:
        """The end of a process: look at what waits, and let the parts hand over."""
        while self._look():
            pass
        self._turn()  # which waits for whoever still judges
        while self._look():
            pass
        for part in self._parts:
            self._guard(part, part.close)

    def _look(self) -> bool:
        """Look at a slice of what waits; False when nothing more does."""
        items, lost = self._tap.take(SLICE)
        self.skipped += lost
        for item in items:
            self._tap.first.judge()
            self._hand(item)
        return len(items) == SLICE

    def _hand(self, item: Item) -> None:
        if isinstance(item, Followed):
            self._policy = item.release.telemetry
            self._guard.begin()
            for part in self._parts:
                self._guard(part, part.follow, item.release)
            return
        if isinstance(item, Heard):
            for part in self._parts:
                self._guard(part, part.hear, item)
            return
        if isinstance(item, Began):
            for part in self._parts:
                if isinstance(part, SeesAlarms):
                    self._guard(part, part.began, *item)
            return
        seen = item._replace(
            answers=summarize(item.outputs, answered_values(self._policy)),
            drifted=self._drifted(item.model),
        )
        for part in self._parts:
            self._see(part, seen)

    def _see(self, part: Watcher, seen: Seen) -> None:
        if seen.disagrees is None:
            self._guard(part, part.see, seen)
        elif isinstance(part, SeesCompared):
            self._guard(part, part.see_compared, seen)

    def _turn(self) -> None:
        self._turned = self._clock()
        self._tap.first.turn(self._clock(), self._now())
        for part in self._parts:
            self._guard(part, part.turn, self._clock(), self._now())
        recently = self._told_at is not None and self._turned - self._told_at < TELL_S
        if self.skipped == self._told or recently:
            return
        lost, self._told, self._told_at = self.skipped - self._told, self.skipped, self._turned
        self._tell_event(
            HealthEvent(what="watch-overload", message=f"{lost} requests weren't looked at")
        )
