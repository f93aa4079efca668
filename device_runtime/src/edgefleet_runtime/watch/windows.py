"""Windows: readings and predictions reduced to one event a rule, key and span.

Rules kept here:

- A number belongs to the span that its own time lies in; a window closes when its span has passed
  by the monotonic clock. So what comes late, or after the device's clock jumped, is in a window of
  its own, and a clock that stands still or jumps back holds none open.
- Memory is bounded: of `MAX_SERIES` values in open windows the one used least recently closes
  early, and numbers that are held one by one are `MAX_KEPT` at most. Closing early is told.
- What is open when the process is killed is lost.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from datetime import UTC, datetime
from itertools import islice
from math import floor, isfinite
from typing import TYPE_CHECKING

from edgefleet.protocol.event import HealthEvent, Window
from edgefleet.protocol.expression import ANSWER, READING
from edgefleet_runtime.rules.facts import of_reading
from edgefleet_runtime.rules.judge import Judge
from edgefleet_runtime.watch.facts import MAX_VALUES, numbers_of, of_seen
from edgefleet_runtime.watch.reducing import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.protocol.event import Number
    from edgefleet.protocol.policy import WindowRule
    from edgefleet.protocol.release import Release
    from edgefleet_runtime.rules.facts import Facts
    from edgefleet_runtime.rules.judge import Tell
    from edgefleet_runtime.watch.seen import Heard, Seen

MAX_SERIES = 4096
MAX_KEPT = 1 << 20  # numbers, 8 bytes each
LATEST_S = 253_370_764_800.0  # seconds since 1970 of the last moment that a date can hold, less 1 y

_log = logging.getLogger(__name__)


class Windows:
    """The watch's part that reduces; see `edgefleet_runtime.watch.seen.Watcher`.

    Args:
        emit: takes each window that closes.
        tell: takes health events.
        max_series: values in open windows of all rules together.
    """

    def __init__(
        self,
        emit: Callable[[Window], object],
        tell: Tell,
        *,
        max_series: int = MAX_SERIES,
    ) -> None:
        self._emit = emit
        self._tell = tell
        self._max_series = max_series
        self._rules: dict[str, _Rule] = {}
        self._series = 0
        self._kept = 0

    def follow(self, release: Release) -> None:
        """Go by this release's rules; windows of rules that changed close."""
        wanted = {rule.name: rule for rule in release.telemetry.windows}
        for name, held in tuple(self._rules.items()):
            if wanted.get(name) != held.rule:
                self._close(held, tuple(held.open))
                del self._rules[name]
        for name, rule in wanted.items():
            if name not in self._rules:
                self._rules[name] = _Rule(rule, self._tell)

    def see(self, seen: Seen) -> None:
        """Take the numbers of a request."""
        facts: Facts | None = None
        for rule in self._rules.values():
            if rule.rule.model == seen.model:
                facts = facts or of_seen(seen)
                self._take(rule, "", facts, numbers_of(seen), seen.time, seen.at)

    def hear(self, heard: Heard) -> None:
        """Take the numbers of a reading."""
        facts: Facts | None = None
        reading = heard.reading
        for rule in self._rules.values():
            if rule.rule.stream == reading.stream:
                facts = facts or of_reading(reading)
                self._take(rule, reading.key, facts, reading.values, heard.time, heard.at)

    def turn(self, at: float, time: float) -> None:
        """Close what is over."""
        for rule in self._rules.values():
            if at >= rule.next_close:
                self._close_due(rule, at)

    def close(self) -> None:
        """Close everything."""
        for rule in self._rules.values():
            self._close(rule, tuple(rule.open))

    def _take(  # noqa: PLR0917 - one reading
        self,
        rule: _Rule,
        key: str,
        facts: Facts,
        numbers: Mapping[str, Number],
        time: float,
        at: float,
    ) -> None:
        if at >= rule.next_close:
            self._close_due(rule, at)
        if not rule.judge.holds(facts):
            return
        size = rule.rule.size_s
        time = min(max(time, 0.0), LATEST_S)
        number = floor(time / size)
        place = (key, number)
        window = rule.open.get(place)
        if window is None:
            left = min(max((number + 1) * size - time, 0.0), size)
            window = rule.open[place] = _Open(at + left)
            rule.next_close = min(rule.next_close, window.closes_at)
        else:
            rule.open.move_to_end(place)
        series, kept = window.add(rule.rule, numbers)
        self._series += series
        self._kept += kept
        if self._series > self._max_series:
            rule.early(self._tell)
            self._close(rule, (next(iter(rule.open)),))
        if self._kept > MAX_KEPT:
            for each in self._rules.values():
                for held in each.open.values():
                    held.shrink()
            self._kept = 0

    def _close_due(self, rule: _Rule, at: float) -> None:
        due = tuple(place for place, window in rule.open.items() if window.closes_at <= at)
        self._close(rule, due)
        rule.next_close = min((w.closes_at for w in rule.open.values()), default=float("inf"))

    def _close(self, rule: _Rule, places: tuple[tuple[str, int], ...]) -> None:
        for place in places:
            window = rule.open.pop(place)
            self._series -= len(window.series)
            self._kept -= window.kept
            self._emit(window.told(rule.rule, place))


class _Rule:
    """A rule with its open windows, by key and number of the span; the last used comes last."""

    def __init__(self, rule: WindowRule, tell: Tell) -> None:
        self.rule = rule
        self.judge = Judge(
            f"windows.{rule.name}", rule.when, READING if rule.stream else ANSWER, tell
        )
        self.open: OrderedDict[tuple[str, int], _Open] = OrderedDict()
        self.next_close = float("inf")
        self._early = False

    def early(self, tell: Tell) -> None:
        """Tell, the first time, that windows close before their end."""
        if not self._early:
            self._early = True
            message = f"windows.{self.rule.name}: too many keys at a time, windows close early"
            _log.warning("%s", message)
            tell(HealthEvent(what="windows-early", message=message))


class _Open:
    """One open window; ``closes_at`` is monotonic."""

    __slots__ = ("closes_at", "count", "kept", "series")

    def __init__(self, closes_at: float) -> None:
        self.closes_at = closes_at
        self.count = 0
        self.kept = 0
        self.series: dict[str, Series] = {}

    def add(self, rule: WindowRule, numbers: Mapping[str, Number]) -> tuple[int, int]:
        """Take one reading's numbers; returns how many more values and numbers are held."""
        self.count += 1
        before = len(self.series), self.kept
        for name in rule.values or islice(numbers, MAX_VALUES):
            value = numbers.get(name)
            series = self.series.get(name)
            if series is None:
                if len(self.series) >= MAX_VALUES:
                    continue
                series = self.series[name] = Series(rule.quantiles, rule.edges)
            if value is not None and isfinite(value):
                held = series.kept
                series.add(value)
                self.kept += series.kept - held
        return len(self.series) - before[0], self.kept - before[1]

    def shrink(self) -> None:
        """Hold sketches in place of numbers."""
        for series in self.series.values():
            series.shrink()
        self.kept = 0

    def told(self, rule: WindowRule, place: tuple[str, int]) -> Window:
        """What the window saw."""
        key, number = place
        return Window(
            rule=rule.name,
            start=datetime.fromtimestamp(number * rule.size_s, UTC),
            end=datetime.fromtimestamp((number + 1) * rule.size_s, UTC),
            count=self.count,
            values={name: series.aggregate(self.count) for name, series in self.series.items()},
            key=key,
            stream=rule.stream,
            model=rule.model,
        )
