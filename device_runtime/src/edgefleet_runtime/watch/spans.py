"""What came in the last seconds, reduced: a sliding span in bounded memory.

The span is cut into `BUCKETS` parts, so its beginning is exact to that share of its length. Numbers
go by the monotonic clock of the device, never by what it takes for the time.
"""

from __future__ import annotations

from collections import deque
from copy import copy
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

    def join(self, later: _Sum) -> None:
        """Take what came later, which stays as it is."""
        self.count += later.count
        self.total += later.total
        self.least = min(self.least, later.least)
        self.most = max(self.most, later.most)
        self.last = later.last


class _Part:
    """What came in one part of the span, or in several."""

    __slots__ = ("count", "index", "sums")

    def __init__(self, index: int) -> None:
        self.index = index
        self.count = 0
        self.sums: dict[str, _Sum] = {}

    def add(self, numbers: Mapping[str, Number]) -> None:
        self.count += 1
        for name, value in numbers.items():
            if value is None or not isfinite(value):
                continue
            held = self.sums.get(name)
            if held is not None:
                held.add(value)
            elif len(self.sums) < MAX_VALUES:
                self.sums[name] = _Sum(value)

    def join(self, later: _Part) -> None:
        """Take what came later, which stays as it is."""
        self.count += later.count
        for name, each in later.sums.items():
            held = self.sums.get(name)
            if held is None:
                self.sums[name] = copy(each)
            else:
                held.join(each)


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
        self._all: _Part | None = None  # all parts in one, where that is known

    def add(self, numbers: Mapping[str, Number], at: float) -> None:
        """Take what came at a moment; moments don't go back."""
        index = floor(at / self._width_s)
        if not self._parts or self._parts[-1].index != index:
            self._parts.append(_Part(index))
            self._forget(at)
        self._parts[-1].add(numbers)
        if self._all is not None:
            self._all.add(numbers)

    def facts(self, key: str, at: float) -> Facts | None:
        """What a condition may name; None until the span has passed once."""
        if at - self._began < self._length_s:
            return None
        self._forget(at)
        if self._all is None:
            self._all = _Part(0)
            for part in self._parts:
                self._all.join(part)
        seen = self._all
        return {
            "key": key,
            "count": seen.count,
            "mean": {name: each.total / each.count for name, each in seen.sums.items()},
            "least": {name: each.least for name, each in seen.sums.items()},
            "most": {name: each.most for name, each in seen.sums.items()},
            "last": {name: each.last for name, each in seen.sums.items()},
        }

    @property
    def cells(self) -> int:
        """How many sums it holds, each of some 150 bytes."""
        return sum(len(part.sums) for part in self._parts)

    def _forget(self, at: float) -> None:
        first = floor((at - self._length_s) / self._width_s)
        while self._parts and self._parts[0].index <= first:
            self._parts.popleft()
            self._all = None
