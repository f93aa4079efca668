"""Whether a model on trial keeps its release's budget: counts over its last requests, pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgefleet.protocol.release import Budget

SLOW_SHARE = 0.01  # of the window that may take longer than the 99th percentile allowed


class Window:
    """The last requests of one model.

    A budget is broken as soon as the window holds more failures, or more slow runs, than it may
    hold when it is full: further requests could not mend it.

    Args:
        budget: what is allowed.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._runs: deque[tuple[bool, bool, float]] = deque()  # failed, slow, microseconds
        self._failed = 0
        self._slow = 0

    def count(self, elapsed_us: float, *, failed: bool) -> str | None:
        """Take note of a request.

        Returns:
            In a sentence with figures how the budget is broken, if it is.
        """
        limit_us = self._budget.max_p99_us
        slow = not failed and limit_us is not None and elapsed_us > limit_us
        self._runs.append((failed, slow, elapsed_us))
        self._failed += failed
        self._slow += slow
        if len(self._runs) > self._budget.window:
            before = self._runs.popleft()
            self._failed -= before[0]
            self._slow -= before[1]
        return self._verdict()

    def _verdict(self) -> str | None:
        budget, seen = self._budget, len(self._runs)
        share, limit_us = budget.max_error_share, budget.max_p99_us
        if share is not None and self._failed > share * budget.window:
            return (
                f"{self._failed} of its last {seen} requests failed, the budget allows "
                f"{share:.2%} of {budget.window}"
            )
        if limit_us is not None and self._slow > SLOW_SHARE * budget.window:
            slowest = max(elapsed for failed, _, elapsed in self._runs if not failed)
            return (
                f"{self._slow} of its last {seen} requests took longer than {limit_us:.0f} us, the "
                f"slowest {slowest:.0f} us, the budget allows 1% of {budget.window}"
            )
        return None
