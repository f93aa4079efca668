"""The door of the spool: takes answers from the serving side without ever making it wait or fail.

Rules kept here:

- Serving pays for one short critical section; everything else happens in the spool's thread.
- What waits here is bounded in items and in bytes of the arrays it keeps alive; what doesn't fit is
  counted and let go.
- The share that the policy asks for is taken evenly, by counting: 0.1 is every tenth answer.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.protocol.policy import TelemetryPolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.table import ServedModel

MAX_ITEMS = 8192
MAX_BYTES = 16 << 20  # of arrays kept alive


class Answer(NamedTuple):
    """One answered request. ``time`` is in seconds since the epoch."""

    model: str
    version: str
    bundle: str
    variant: str
    outputs: Mapping[str, NDArray[Any]]
    latency_us: float
    request: str | None
    time: float
    values: int
    trace: str | None = None


class Intake:
    """A bounded queue of answers; `observe` is a table's observer.

    Attributes:
        crowded: whether much has gathered: some may find no room soon.
    """

    def __init__(self, *, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        self.policy = TelemetryPolicy()
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._answers: deque[Answer] = deque()
        self._bytes = 0
        self._seen = 0
        self.crowded = False
        self._dropped: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._urgent = threading.Event()

    def observe(
        self,
        served: ServedModel,
        outputs: Mapping[str, NDArray[Any]],
        latency_us: float,
        request: str | None,
        trace: str | None = None,
        /,
    ) -> None:
        """Take an answer, if the policy wants it and there is room.

        The arrays are read later, in another thread: who calls must not write to them any more.
        """
        policy = self.policy
        if not policy.prediction_fraction:
            return
        size = sum(array.nbytes for array in outputs.values())
        with self._lock:
            before = int(self._seen * policy.prediction_fraction)
            self._seen += 1
            if int(self._seen * policy.prediction_fraction) == before:
                return
            if len(self._answers) >= self._max_items or self._bytes + size > self._max_bytes:
                self._dropped[served.name] += 1
                return
            self._bytes += size
            self._answers.append(
                Answer(
                    served.name,
                    served.version,
                    served.bundle,
                    served.variant,
                    outputs,
                    latency_us,
                    request,
                    time.time(),
                    policy.output_values,
                    trace,
                )
            )
            crowded = len(self._answers) * 2 > self._max_items or self._bytes * 2 > self._max_bytes
            self.crowded = crowded
        # The other thread is woken only when it must be: each switch costs the server some of its
        # next answer.
        if crowded:
            self._urgent.set()

    def take(self) -> tuple[list[Answer], Counter[str]]:
        """All that waits, and how many were let go since the last call, by model."""
        with self._lock:
            taken, self._answers = self._answers, deque()
            dropped, self._dropped, self._bytes = self._dropped, Counter(), 0
            self.crowded = False
        return list(taken), dropped

    def wait(self, timeout_s: float) -> bool:
        """Wait until much has gathered, `wake` was called, or so many seconds have passed.

        Returns:
            Whether much has gathered.
        """
        self._urgent.wait(timeout_s)
        self._urgent.clear()
        return self.crowded

    def wake(self) -> None:
        """End the `wait` in progress, or else the next one."""
        self._urgent.set()
