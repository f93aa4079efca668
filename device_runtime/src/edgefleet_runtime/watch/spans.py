"""What came in the last seconds, reduced: a sliding span in bounded memory.

The span is cut into `BUCKETS` parts, so its beginning is exact to that share of its length. Numbers
go by the monotonic clock of the device, never by what it takes for the time.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from math import floor, isfinite
from typing import TYPE_CHECKING

from edgefleet_runtime.watch.facts import MAX_VALUES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.protocol.event import Number
    from edgefleet_runtime.rules.facts import Facts

BUCKETS = 64


class _Sum:
    """One value in one part of the span, or in several."""

    __slots__ = ("count", "last", "least", "most", "total")

    def __init__(self, value: float) -> None:
        self.count = 1
        self.total = self.least = self.most = self.last = value

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self.least = min(self.least, value)
        self.most = max(self.most, value)
        self.last = value

    def followed(self, later: _Sum | None) -> _Sum:
        """Both in one; this one stays as it is."""
        if later is None:
            return self
        both = _Sum(later.last)
        both.count = self.count + later.count
        both.total = self.total + later.total
        both.least = min(self.least, later.least)
        both.most = max(self.most, later.most)
        return both


class _Part:
    """What came in one part of the span, or in several."""

    __slots__ = ("count", "index", "sums")

    def __init__(self, index: int) -> None:
        self.index = index
        self.count = 0
        self.sums: dict[str, _Sum] = {}

    def followed(self, later: _Part) -> _Part:
        """Both in one; this one stays as it is."""
        both = _Part(later.index)
        both.count = self.count + later.count
        sums = {**later.sums, **self.sums}
        for name in self.sums.keys() & later.sums.keys():
            sums[name] = self.sums[name].followed(later.sums[name])
        both.sums = sums
        return both


class Span:
    """The last seconds of one key.

    Args:
        length_s: of the span.
        at: when its first number comes.
    """

    def __init__(self, length_s: float, at: float) -> None:
        self._length_s = length_s
        self._width_s = length_s / BUCKETS
        self._began = at
        self._parts: deque[_Part] = deque()
        self._before: _Part | None = None  # all parts but the last in one, where that is known

    def add(self, numbers: Mapping[str, Number], at: float) -> None:
        """Take what came at a moment; moments don't go back."""
        index = floor(at / self._width_s)
        if not self._parts or self._parts[-1].index != index:
            self._parts.append(_Part(index))
            self._before = None
            self._forget(at)
        part = self._parts[-1]
        part.count += 1
        for name, value in numbers.items():
            if value is None or not isfinite(value):
                continue
            held = part.sums.get(name)
            if held is not None:
                held.add(value)
            elif len(part.sums) < MAX_VALUES:
                part.sums[name] = _Sum(value)

    def facts(self, key: str, at: float) -> Facts | None:
        """What a condition may name; None until the span has passed once."""
        if at - self._began < self._length_s:
            return None
        self._forget(at)
        seen = self._all()
        return {
            "key": key,
            "count": seen.count,
            "mean": {name: each.total / each.count for name, each in seen.sums.items()},
            "least": {name: each.least for name, each in seen.sums.items()},
            "most": {name: each.most for name, each in seen.sums.items()},
            "last": {name: each.last for name, each in seen.sums.items()},
        }

    def _all(self) -> _Part:
        if not self._parts:
            return _Part(0)
        before = self._before
        if before is None:
            before = _Part(0)
            for part in islice(self._parts, len(self._parts) - 1):
                before = before.followed(part)
            self._before = before
        return before.followed(self._parts[-1])

    @property
    def cells(self) -> int:
        """How many sums it holds, each of some 150 bytes."""
        return sum(len(part.sums) for part in self._parts)

    def _forget(self, at: float) -> None:
        first = floor((at - self._length_s) / self._width_s)
        while self._parts and self._parts[0].index <= first:
            self._parts.popleft()
            self._before = None
