"""A release on trial: from when it begins to serve until it counts as good, or breaks its budget.

Requests are counted where they run, in whichever thread; the one that breaks the budget wakes the
reconciler, which takes the release back.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.reconciler.budget import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.protocol.release import Budget
    from edgefleet_runtime.reconciler.machine import Key
    from edgefleet_runtime.reconciler.slot import Slot
    from edgefleet_runtime.serve.table import ServedModel, Watcher


class Trial:
    """Watches the release that serves, while it is on trial.

    Args:
        healthy_after_s: seconds of serving until a release counts as good, unless its budget says
            another time.
        clock: monotonic seconds.
        alarm: called once when a budget is broken, from the thread of the request that broke it.
    """

    def __init__(
        self, *, healthy_after_s: float, clock: Callable[[], float], alarm: Callable[[], object]
    ) -> None:
        self.broken: tuple[Key, str] | None = None
        """Which model broke the budget, and how."""
        self._healthy_after_s = healthy_after_s
        self._clock = clock
        self._alarm = alarm
        self._until: float | None = None
        self._watched: list[tuple[ServedModel, Watcher]] = []

    def begin(self, slot: Slot) -> None:
        """Watch a slot that serves from now on, instead of the one before."""
        self.end()
        budget = slot.acquired.release.settings.budget
        seconds = budget.trial_s if budget is not None else None
        self._until = self._clock() + (self._healthy_after_s if seconds is None else seconds)
        if budget is None:
            return
        for key, unit in slot.units.items():
            served = unit.served
            # What the release before served as well is none of this one's doing; nor is a shadow.
            if served is not None and not unit.shared and key[1] == "active":
                watcher = self._watcher(key, budget)
                served.watch(watcher)
                self._watched.append((served, watcher))

    def end(self) -> None:
        """Watch nothing."""
        for served, watcher in self._watched:
            served.unwatch(watcher)
        self._watched, self._until, self.broken = [], None, None

    def due_in_s(self) -> float | None:
        """Seconds until the release counts as good, not below 0; None when none is on trial."""
        return None if self._until is None else max(0.0, self._until - self._clock())

    def _watcher(self, key: Key, budget: Budget) -> Watcher:
        window, lock = Window(budget), threading.Lock()

        def watch(
            _: Mapping[str, Any], outcome: Mapping[str, Any] | Exception, elapsed_us: float
        ) -> None:
            if isinstance(outcome, InvalidInputError) or self.broken is not None:
                return  # who asks wrongly must not be able to take a release back
            with lock:
                wrong = window.count(elapsed_us, failed=isinstance(outcome, Exception))
            if wrong is not None:
                self.broken = (key, f"broke its budget on trial: {wrong}")
                self._alarm()

        return watch
