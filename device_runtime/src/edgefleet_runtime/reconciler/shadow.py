"""A shadow model: sees copies of the active model's requests, and its answers go nowhere.

Rules kept here:

- The active model's requests pay for a copy of their arrays and nothing else; what doesn't fit into
  the queue is dropped and counted.
- The shadow runs in a thread of its own, at most for its share of the time.
- Nothing that it does, raises or answers reaches a caller.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from edgefleet.protocol.report import ShadowReport
from edgefleet_runtime.reconciler.compare import compare
from edgefleet_runtime.serve.capture import bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.table import ServedModel

    Arrays = Mapping[str, NDArray[Any]]
    OnCompared = Callable[[ServedModel, Arrays, Arrays, bool], object]

_log = logging.getLogger(__name__)

MAX_WAITING = 64  # copies of requests


class Shadow:
    """Runs one shadow model beside the active one until `stop`.

    Args:
        served: the shadow.
        active: whose requests it gets.
        share: of the time that it may run, 0 to 1.
        max_bytes: what the copies that wait may take.
        on_compared: called with the active model, a request's inputs and its outputs, and whether
            the shadow's best class is another one, in the shadow's thread.
    """

    def __init__(
        self,
        served: ServedModel,
        active: ServedModel,
        *,
        share: float,
        max_bytes: int,
        on_compared: OnCompared = lambda *_: None,
    ) -> None:
        self._served = served
        self._active = active
        self._share = share
        self._max_bytes = max_bytes
        self._on_compared = on_compared
        self._waiting: deque[tuple[Arrays, Arrays, int]] = deque()
        self._bytes = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._compared = self._dropped = self._results = self._agreeing = 0
        self._max_abs = 0.0
        self._thread = threading.Thread(target=self._run, name=f"shadow {served.name}", daemon=True)
        active.watch(self._watch)
        self._thread.start()

    def stop(self) -> None:
        """Take no more copies, forget those that wait, and end the thread after its run."""
        self._active.unwatch(self._watch)
        with self._changed:
            self._stopped = True
            self._waiting.clear()
            self._bytes = 0
            self._changed.notify_all()

    def report(self) -> ShadowReport:
        """The figures so far."""
        with self._changed:
            return ShadowReport(
                compared=self._compared,
                dropped=self._dropped,
                agreement=self._agreeing / self._results if self._results else None,
                max_abs_diff=self._max_abs if math.isfinite(self._max_abs) else None,
            )

    def _watch(self, inputs: Arrays, outcome: Arrays | Exception, _: float) -> None:
        if isinstance(outcome, Exception):
            return
        size = bytes_of(inputs) + bytes_of(outcome)
        with self._changed:
            full = self._bytes + size > self._max_bytes or len(self._waiting) >= MAX_WAITING
            if self._stopped or full or not self._share:
                self._dropped += not self._stopped
                return
            # Borrowed arrays may lie in a request's buffer, or in memory that a client shares.
            copies = {name: array.copy() for name, array in inputs.items()}
            answers = {name: array.copy() for name, array in outcome.items()}
            self._waiting.append((copies, answers, size))
            self._bytes += size
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._waiting)
                if self._stopped:
                    return
                inputs, due, size = self._waiting.popleft()
            start = time.perf_counter()
            try:
                self._answer(inputs, due)
            except Exception as error:  # noqa: BLE001 - the served model counts it
                _log.debug("shadow %s: %s", self._served.name, error)
            took_s = time.perf_counter() - start
            with self._changed:
                self._bytes = max(0, self._bytes - size)
                rest_s = took_s * (1 / self._share - 1)
                if self._changed.wait_for(lambda: self._stopped, rest_s):
                    return

    def _answer(self, inputs: Arrays, due: Arrays) -> None:
        with self._served.lease() as served:
            got, _ = served.infer(inputs, list(due))
        difference = compare(due, got)
        with self._changed:
            self._compared += 1
            self._results += difference.results
            self._agreeing += difference.agreeing
            self._max_abs = max(self._max_abs, difference.max_abs)
        self._on_compared(self._active, inputs, due, difference.agreeing < difference.results)
