"""How often somebody may ask: a bucket of tokens each, filled again at a steady rate."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple


class Rate(NamedTuple):
    """Requests a second over long, and how many may come at once."""

    per_s: float
    burst: float


class Buckets:
    """One bucket for each who asks; the ones not seen for longest are forgotten.

    Args:
        rate: of each.
        kept: how many are remembered.
    """

    def __init__(self, rate: Rate, *, kept: int = 50_000) -> None:
        self._rate = rate
        self._kept = kept
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, now: float) -> float:
        """Take a token.

        Args:
            who: asks.
            now: seconds that only rise.

        Returns:
            0 when there was one, else the seconds until there is.
        """
        level, since = self._levels.get(who, (self._rate.burst, now))
        level = min(self._rate.burst, level + (now - since) * self._rate.per_s)
        short = 1.0 - level
        self._levels[who] = (level if short > 0 else level - 1.0, now)
        self._levels.move_to_end(who)
        if len(self._levels) > self._kept:
            self._levels.popitem(last=False)
        return math.ceil(short / self._rate.per_s) if short > 0 else 0.0
