"""When to try again what failed for reasons outside: pauses that double, with jitter."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIRST_S, LONGEST_S = 2.0, 300.0
LONGEST_ASKED_S = 900.0  # of a Retry-After that is honoured; a device asks a few times an hour


def pauses(
    jitter: random.Random, *, first_s: float = 0.5, longest_s: float = 30.0
) -> Iterator[float]:
    """Seconds to wait before each new try: doubling up to a limit, each anywhere in its upper half.

    The jitter keeps a thousand devices that lost the same network from coming back in step.
    """
    pause = first_s
    while True:
        yield jitter.uniform(pause / 2, pause)
        pause = min(pause * 2, longest_s)


class RetryTimer:
    """A timer whose delay doubles with each wait, until `reset`.

    Args:
        clock: monotonic seconds.
        jitter: source of chance.
    """

    def __init__(self, clock: Callable[[], float], jitter: random.Random | None = None) -> None:
        self._clock = clock
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._at: float | None = None
        self.reset()

    def wait(self, *, at_least_s: float = 0.0) -> None:
        """Become due after the next delay, or a longer one that the other side asked for."""
        self._at = self._clock() + max(at_least_s, next(self._pauses))

    def due_in_s(self) -> float | None:
        """Seconds until it is due, not below 0; None when nothing waits."""
        return None if self._at is None else max(0.0, self._at - self._clock())

    def cancel(self) -> None:
        """Wait for nothing, without forgetting how often it was waited already."""
        self._at = None

    def reset(self) -> None:
        """Wait for nothing, and begin with the shortest delay next time."""
        self._at = None
        self._pauses = pauses(self._jitter, first_s=FIRST_S, longest_s=LONGEST_S)
