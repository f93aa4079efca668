"""The watch: one thread that hands requests and readings to the parts that look at them.

Rules kept here:

- Each part is called in this thread alone, in the order in which it was given, and for each item
  before the next one.
- A part that raises is left out for that item, counted and told of once a release: the others, and
  serving, go on.
- A release's policy counts from the first request on that it served.
- What wasn't looked at for lack of room is counted, and told at most once a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.serve.summary import summarize
from edgefleet_runtime.watch.seen import GoesOn, Heard, SeesCompared
from edgefleet_runtime.watch.tap import Followed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet.protocol.event import EventData
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.watch.seen import Seen, Watcher
    from edgefleet_runtime.watch.tap import Item, Tap

_log = logging.getLogger(__name__)

TURN_S = 0.5  # between two turns of the parts, at most
SLICE = 4  # items that are worked through in one go, in some 0.3 ms
PAUSE_S = 0.001  # between two slices, while there is no hurry
MANY = 1024  # slices in one go are worked through without a pause, or some would find no room
TELL_S = 60.0  # between two health events about what wasn't looked at
VALUES = 16  # of each output in the answers, where the policy keeps fewer


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
        self.failures = 0
        """Calls in which a part raised."""
        self._tap = tap
        self._parts = tuple(parts)
        self._tell_event = tell
        self._drifted = drifted
        self._clock = clock
        self._now = now
        self._policy = TelemetryPolicy()
        self._told_parts: set[int] = set()
        self._told = 0
        self._told_at: float | None = None
        self._turned = clock() - TURN_S
        self._more = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

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
                self._stopping.wait(PAUSE_S)
            if self._clock() - self._turned >= TURN_S:
                self._turn()
        if self._clock() - self._turned >= TURN_S:
            self._turn()
        self._more = False
        for part in self._parts:
            if isinstance(part, GoesOn):
                self._guarded(part, self._go_on, part)

    def _go_on(self, part: GoesOn) -> None:
        self._more = part.go_on() or self._more

    def finish(self) -> None:
        """The end of a process: look at what waits, and let the parts hand over."""
        while self._look():
            pass
        self._turn()
        for part in self._parts:
            self._guarded(part, part.close)

    def _look(self) -> bool:
        """Look at a slice of what waits; False when nothing more does."""
        items, lost = self._tap.take(SLICE)
        self.skipped += lost
        for item in items:
            self._hand(item)
        return len(items) == SLICE

    def _hand(self, item: Item) -> None:
        if isinstance(item, Followed):
            self._policy = item.release.telemetry
            self._told_parts.clear()
            for part in self._parts:
                self._guarded(part, part.follow, item.release)
            return
        if isinstance(item, Heard):
            for part in self._parts:
                self._guarded(part, part.hear, item)
            return
        seen = item._replace(
            answers=summarize(item.outputs, self._policy.output_values or VALUES),
            drifted=self._drifted(item.model),
        )
        for part in self._parts:
            self._see(part, seen)

    def _see(self, part: Watcher, seen: Seen) -> None:
        if seen.disagrees is None:
            self._guarded(part, part.see, seen)
        elif isinstance(part, SeesCompared):
            self._guarded(part, part.see_compared, seen)

    def _turn(self) -> None:
        self._turned = self._clock()
        for part in self._parts:
            self._guarded(part, part.turn, self._clock(), self._now())
        recently = self._told_at is not None and self._turned - self._told_at < TELL_S
        if self.skipped == self._told or recently:
            return
        lost, self._told, self._told_at = self.skipped - self._told, self.skipped, self._turned
        self._tell_event(
            HealthEvent(what="watch-overload", message=f"{lost} requests weren't looked at")
        )

    def _guarded(self, part: Watcher, call: Callable[..., object], *what: object) -> None:
        try:
            call(*what)
        except Exception as error:  # noqa: BLE001 - the other parts go on, and so does this one
            self.failures += 1
            if id(part) in self._told_parts:
                return
            self._told_parts.add(id(part))
            name = type(part).__name__
            _log.exception("the watch's part %s failed", name)
            said = f"{name} failed: {type(error).__name__}: {error}"[:512]
            self._tell_event(HealthEvent(what="watch-failed", message=said))
