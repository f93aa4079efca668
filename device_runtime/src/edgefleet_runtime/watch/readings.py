"""Readings as events: those that filters let pass, and that no window takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.protocol.event import new_event
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.rules.filters import Filters
from edgefleet_runtime.watch.windows import LATEST_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.rules.judge import Tell
    from edgefleet_runtime.watch.seen import Heard, Seen


class ReadingEvents:
    """The watch's part that keeps readings; see `edgefleet_runtime.watch.seen.Watcher`.

    Args:
        keep: takes events.
        tell: takes health events.
    """

    def __init__(self, keep: Callable[[Event], object], tell: Tell) -> None:
        self._keep = keep
        self._tell = tell
        self._filters = Filters(TelemetryPolicy(), tell)

    def follow(self, release: Release) -> None:
        """Go by this release's filters and windows."""
        self._filters = Filters(release.telemetry, self._tell)

    def see(self, seen: Seen) -> None:
        """Nothing: predictions become events on their own way."""

    def hear(self, heard: Heard) -> None:
        """Keep a reading, if it is wanted one by one."""
        if self._filters.hears(heard.reading):
            time = datetime.fromtimestamp(min(max(heard.time, 0.0), LATEST_S), UTC)
            self._keep(new_event(heard.reading, time=time))

    def turn(self, at: float, time: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
