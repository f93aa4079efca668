"""Events on their way into the spool from other threads, bounded in number and in bytes.

What doesn't fit is counted by kind, model and day, as if the store had had no room for it.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefleet.protocol.event import Event

MAX_ITEMS = 16384
MAX_BYTES = 8 << 20  # of their data
_ENVELOPE_BYTES = 512  # about what an event takes in memory beside its data


class Handed(NamedTuple):
    """An event, and who wants to know whether it outlives the process."""

    event: Event
    done: Callable[[bool], None] | None = None


class Taken(NamedTuple):
    """What an inbox held.

    Attributes:
        items: the events.
        refused: how many found no room, by kind, model and day (a proleptic ordinal).
        waiting: those who are to be told so.
    """

    items: list[Handed]
    refused: Counter[tuple[str, str, int]]
    waiting: list[Callable[[bool], None]]


class Inbox:
    """A bounded queue; any thread may call it."""

    def __init__(self, *, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes = 0
        self._taken = Taken([], Counter(), [])

    def put(self, items: Iterable[Handed]) -> int:
        """Take what fits; returns how many did not."""
        refused = 0
        with self._lock:
            for item in items:
                event = item.event
                size = len(event.data) + _ENVELOPE_BYTES
                if (
                    len(self._taken.items) < self._max_items
                    and self._bytes + size <= self._max_bytes
                ):
                    self._bytes += size
                    self._taken.items.append(item)
                    continue
                refused += 1
                key = (event.kind, event.subject or "", event.time.toordinal())
                self._taken.refused[key] += 1
                if item.done is not None:
                    self._taken.waiting.append(item.done)
        return refused

    def holds(self, kind: str) -> bool:
        """Whether an event of that kind waits."""
        return any(item.event.kind == kind for item in self._taken.items)

    def take(self) -> Taken:
        """All that waits."""
        with self._lock:
            taken, self._taken, self._bytes = self._taken, Taken([], Counter(), []), 0
        return taken
