"""What arrives at telemetry from a moment on, told from what was there before.

When an event happened doesn't tell when it arrives: a device that was offline brings old ones.

- A segment is new when its path is. It is read once.
- A hot event is new when the backend took it in lately and its id wasn't there before. How late is
  "lately" tells the backend's clock, so each look goes back by what that may be off ours.
- What the last look gave is known, however much it is: what a look leaves out, no later one gives,
  unless it arrives again. A device sends again what it wasn't told the arrival of, so the last
  `REMEMBERED` that are given no more are known as well.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from edgefleet.protocol.event import HOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgefleet.protocol.event import Event

K = TypeVar("K")

OVERLAP = timedelta(minutes=1)  # how far the backend's clock may be off ours
REMEMBERED = 100_000
"""Of hot events, of others and of segments each, that were there: some 25 MB at most."""


class Query(Protocol):
    """What of an `EventQuery` is needed."""

    def there(self) -> Iterable[str]:
        """Paths of the segments that are there."""

    def news(self, since: datetime, is_new: Callable[[str], bool]) -> Iterator[Event]:
        """Events but for those of segments that aren't new; asks that of each that is there."""


class Known(Generic[K]):
    """What has been given; bounded by what a look gives, and by `REMEMBERED`."""

    def __init__(self) -> None:
        self._before: set[K] = set()  # given by the last look that gave anything
        self._now: set[K] = set()
        self._gone: dict[K, None] = {}  # given before that, those that went last at the end

    def __len__(self) -> int:
        return len(self._before | self._now) + len(self._gone)

    def is_new(self, key: K) -> bool:
        """Whether something hasn't been given before; from now on it has."""
        known = key in self._now or key in self._before or key in self._gone
        self._gone.pop(key, None)
        self._now.add(key)
        return not known

    def looked(self) -> None:
        """All that a look gives was asked for.

        One that gives nothing forgets nothing: what holds it may be away, such as a disk that isn't
        mounted.
        """
        if not self._now:
            return
        self._gone.update(dict.fromkeys(self._before - self._now))
        while len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]
        self._before, self._now = self._now, set()


class Arrivals:
    """Events of a query that arrive after this was made, each once.

    Args:
        query: which events; its telemetry is read for what is there already.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        self._since = datetime.now(UTC) - OVERLAP
        self._segments = Known[str]()
        for path in query.there():
            self._segments.is_new(path)
        self._hot, self._cold = Known[tuple[str | None, str]](), Known[tuple[str | None, str]]()
        for _ in self._new():
            pass

    def until_quiet(self, poll_s: float, timeout_s: float | None) -> Iterator[Event]:
        """Those that have come, and those to come until so many seconds bring none; None: for ever.

        Args:
            poll_s: seconds between two looks.
            timeout_s: what came before they were over is given, however long a look takes.
        """
        quiet, late = time.monotonic(), False
        while not late:
            late = timeout_s is not None and time.monotonic() - quiet >= timeout_s
            for event in self._new():
                yield event
                quiet, late = time.monotonic(), False
            time.sleep(poll_s)

    def _new(self) -> Iterator[Event]:
        began = datetime.now(UTC)
        for event in self._query.news(self._since, self._segments.is_new):
            known = self._hot if event.kind in HOT else self._cold
            if known.is_new((event.device, event.id)):
                yield event
        for each in (self._segments, self._hot, self._cold):
            each.looked()
        self._since = began - OVERLAP
