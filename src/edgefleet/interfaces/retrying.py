"""After how long a call over a network is repeated. Whether it may be, its caller knows.

Rules kept here:

- Waits grow, with full jitter, so that operators who were refused together don't come together.
- What a service asks for with ``Retry-After`` is honoured up to a longest wait; who is told to wait
  longer is told so.
"""

from __future__ import annotations

import random
from typing import NamedTuple

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses of HTTP that another try may mend."""


class Pauses(NamedTuple):
    """Waits between the tries of a call, in seconds.

    Attributes:
        first_s: bound of the first; it doubles with each try.
        most_s: what the bound grows to.
        longest_told_s: what a service may ask for at the most.
    """

    first_s: float
    most_s: float
    longest_told_s: float

    def backoff_s(self, tries: int) -> float:
        """How long to wait after so many tries, 1 or more: anything up to the bound."""
        bound = min(self.most_s, self.first_s * 2.0 ** max(0, tries - 1))
        return bound * random.random()  # noqa: S311 - jitter guards nothing

    def is_too_long(self, told_s: float | None) -> bool:
        """Whether a service asks for a wait that isn't honoured; None where it asks for none."""
        return told_s is not None and told_s > self.longest_told_s

    def next_s(self, tries: int, told_s: float | None = None) -> float:
        """How long to wait after so many tries, and no shorter than a service asks for."""
        return max(told_s or 0.0, self.backoff_s(tries))
