"""What looks first: alarms, on the thread that brings what they look at.

Rules kept here:

- Everything is judged in the order in which it came, and then waits, in that order, for the other
  parts of the watch. So nothing that they do stands between a result and its alarm.
- One thread judges at a time, and no thread waits to judge: who finds another one at it leaves
  what he brought to that one.
- A thread that serves judges no more than a few, and nothing of a model or stream whose rules
  proved to take long: the watch's thread does that, before anything else.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.serve.summary import summarize
from edgefleet_runtime.watch.facts import answered_values
from edgefleet_runtime.watch.guard import Guard
from edgefleet_runtime.watch.seen import Began, Followed, Heard, Seen, Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.release import Release
    from edgefleet_runtime.rules.judge import Tell

Item = Seen | Heard | Followed | Began
"""What the watch's thread hands to its parts."""
_Entry = tuple[Item | Taken, int]

FEW = 8  # that a thread which serves judges in one go
LONG_S = 100e-6  # of the processor's time, three rules take a third of it on the machine of ADR 39
SLOW, PATIENCE, MOST = 2, 4, 16
"""Each time that took long counts twice against a model, each other once for it, within bounds."""


class Judging(Protocol):
    """The part that looks first; called by one thread at a time, and may raise nothing."""

    def follow(self, release: Release) -> None:
        """Go by this release's policy from now on."""

    def see(self, seen: Seen) -> None:
        """Look at a request."""

    def see_compared(self, seen: Seen) -> None:
        """Look at a request that a shadow has answered, too."""

    def hear(self, heard: Heard) -> None:
        """Look at a reading."""

    def turn(self, at: float, time: float, between: Callable[[], object]) -> None:
        """Do what is due by the clock; ``between`` lets the part see and hear what has come."""


class First:
    """What has come, judged and then waiting; any thread may call it.

    Args:
        part: looks at what the policy has alarms for; None for nobody.
        tell: takes health events.
        drifted: names the features of a model that have moved.
        spent: seconds of the processor that the thread which asks has used.
    """

    def __init__(
        self,
        part: Judging | None = None,
        tell: Tell = lambda _: None,
        *,
        drifted: Callable[[str], tuple[str, ...]] = lambda _: (),
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._part = part
        self._guard = Guard(tell)
        self._drifted = drifted
        self._spent = spent
        self._come: deque[_Entry] = deque()
        self._judged: deque[_Entry] = deque()
        self._judging = threading.Lock()
        self._values = answered_values(TelemetryPolicy())
        self._models: frozenset[str] = frozenset()
        self._streams: frozenset[str] = frozenset()
        self._slow: dict[tuple[str, str], int] = {}

    @property
    def waiting(self) -> int:
        """How many wait, to be judged or for the watch."""
        return len(self._come) + len(self._judged)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to judge by the policy."""
        return not self._models and not self._streams

    @property
    def failures(self) -> int:
        """Calls in which the part raised."""
        return self._guard.failures

    def come(self, item: Taken | Heard | Followed, size: int) -> None:
        """Add what has come, with its size in bytes; it is judged by the next who judges."""
        self._come.append((item, size))

    def began(self, rule: str, model: str | None, at: float) -> None:
        """Note, while something is judged, that an alarm begins: the others learn of it before."""
        self._judged.append((Began(rule, model, at), 0))

    def take(self) -> _Entry | None:
        """The next that was judged, with its size in bytes; for one thread."""
        return self._judged.popleft() if self._judged else None

    def judge_few(self) -> bool:
        """Judge what has come, on a thread that serves; False where something is left."""
        return self._judge(FEW)

    def judge(self) -> None:
        """Judge all that has come, unless another thread is at it."""
        self._judge(None)

    def turn(self, at: float, time: float) -> None:
        """Do what is due by the clock; what comes meanwhile is judged in between."""
        if self._part is not None:
            with self._judging:
                self._guard(self._part, self._part.turn, at, time, self._judge_come)
        self._judge(None)

    def _judge(self, most: int | None) -> bool:
        done = 0
        # Who comes while the lock is being given back finds it taken: so it is looked once more.
        while self._come and self._judging.acquire(blocking=False):
            try:
                while self._come:
                    if most is not None and (done >= most or self._takes_long(self._come[0][0])):
                        return False
                    self._judge_next()
                    done += 1
            finally:
                self._judging.release()
        return True

    def _judge_come(self) -> None:
        while self._come:
            self._judge_next()

    def _judge_next(self) -> None:
        item, size = self._come.popleft()
        part = self._part
        if part is not None:
            if isinstance(item, Followed):
                self._follow(part, item.release)
            elif isinstance(item, Heard):
                if item.reading.stream in self._streams:
                    self._measured(item, part, part.hear, item)
            elif isinstance(item, Taken) and item.served.name in self._models:
                self._see(part, item)
        self._judged.append((item, size))

    def _follow(self, part: Judging, release: Release) -> None:
        rules = release.telemetry.alarms
        self._guard.begin()
        self._values = answered_values(release.telemetry)
        self._models = frozenset(rule.model for rule in rules if rule.model)
        self._streams = frozenset(rule.stream for rule in rules if rule.stream)
        self._slow.clear()
        self._guard(part, part.follow, release)

    def _see(self, part: Judging, taken: Taken) -> None:
        # Not kept: what waits is bounded by its arrays, and answers may take more.
        seen = taken.seen()._replace(
            answers=summarize(taken.outputs, self._values),
            drifted=self._drifted(taken.served.name),
        )
        look = part.see if taken.disagrees is None else part.see_compared
        self._measured(taken, part, look, seen)

    def _measured(
        self, item: Taken | Heard, part: Judging, look: Callable[..., object], what: Seen | Heard
    ) -> None:
        source = _source(item)
        began = self._spent()
        self._guard(part, look, what)
        slow = self._slow.get(source, 0)
        if self._spent() - began > LONG_S:
            self._slow[source] = min(slow + SLOW, MOST)
        elif slow:
            self._slow[source] = slow - 1

    def _takes_long(self, item: Item | Taken) -> bool:
        """Whether serving shouldn't judge it: rules to follow, and sources that proved slow."""
        if isinstance(item, Taken | Heard):
            return bool(self._slow) and self._slow.get(_source(item), 0) >= PATIENCE
        return isinstance(item, Followed)


def _source(item: Taken | Heard) -> tuple[str, str]:
    if isinstance(item, Taken):
        return "model", item.served.name
    return "stream", item.reading.stream
