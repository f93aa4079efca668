"""What arrives at telemetry from a moment on, told from what was there before.

When an event happened doesn't tell when it arrives: a device that was offline brings old ones.

- A segment is new when its path is. It is read once.
- A hot event is new when the backend took it in lately and its id wasn't there before. How late is
  "lately" tells the backend's clock, so each look goes back by what that may be off ours.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.protocol.event import Event

OVERLAP = timedelta(minutes=1)  # how far the backend's clock may be off ours


class Query(Protocol):
    """What of an `EventQuery` is needed."""

    def there(self) -> set[str]:
        """Paths of the segments that are there."""

    def news(self, since: datetime, known: set[str]) -> Iterator[Event]:
        """Events but for those of known segments; it knows those that it gives events of."""


class Arrivals:
    """Events of a query that arrive after this was made, each once.

    Args:
        query: which events; its telemetry is read for what is there already.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        self._since = datetime.now(UTC) - OVERLAP
        self._known = query.there()
        self._seen: set[tuple[str | None, str]] = set()
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
        for event in self._query.news(self._since, self._known):
            key = (event.device, event.id)
            if key not in self._seen:
                self._seen.add(key)
                yield event
        self._since = began - OVERLAP
