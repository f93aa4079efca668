"""Which requests run together, in what order, and which are refused: decided without clock or IO.

Rules kept here:

- Every request that was taken in is given out once, in a batch or as one that is too late, unless
  it was withdrawn.
- Lower ``priority`` goes first; among equals the order is that of arrival, and only requests with
  the same ``key`` run together.
- A batch never has more rows or bytes than allowed, but for a single request that has more itself.
- No more than ``max_waiting`` requests wait; a request that can't meet its deadline is not taken.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Generic, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
DEFAULT_PRIORITY = 1 << 32  # after every priority that a request can name


class BatchLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How large a batch may become.

    Attributes:
        max_rows: rows of a batch; 1 lets each request run by itself.
        max_bytes: inputs and outputs of a batch together.
        stretch: how many times as long as one row a batch may take, so that waiting for it stays
            bearable; ``grace_us`` is allowed in any case.
        grace_us: microseconds.
        latency_us: how long a batch may run in place of those two; None to leave it to them. A
            request waits for one run and is answered by the next.
        budget_s: for the whole trial.
    """

    max_rows: PositiveInt = 64
    max_bytes: PositiveInt = 64 << 20
    stretch: float = 4.0
    grace_us: float = 1000.0
    latency_us: Annotated[float, msgspec.Meta(gt=0)] | None = None
    budget_s: float = 0.5


class Waiting(Protocol):
    """What a queue knows of a request."""

    @property
    def key(self) -> Hashable:
        """Requests with equal keys may run together."""

    @property
    def rows(self) -> int:
        """Length of the first dimension."""

    @property
    def bytes(self) -> int:
        """Of its inputs."""

    @property
    def priority(self) -> int:
        """Lower goes first."""

    @property
    def deadline_us(self) -> float | None:
        """When the answer is of no more use, on the clock of ``now_us``; None for never."""


_W = TypeVar("_W", bound=Waiting)


class Refused(enum.Enum):
    """Why a request was not taken in."""

    FULL = enum.auto()
    LATE = enum.auto()


class Queue(Generic[_W]):
    """Requests that wait for one model.

    Attributes:
        max_waiting: how many may wait.
        max_rows: of a batch; 1 while each runs by itself.
        max_bytes: of a batch's inputs.
    """

    __slots__ = ("_bytes", "_rows", "_waiting", "max_bytes", "max_rows", "max_waiting")

    def __init__(self, max_waiting: int, max_rows: int = 1, max_bytes: int = 32 << 20) -> None:
        self.max_bytes = max_bytes
        self._bytes = 0
        self.max_waiting = max_waiting
        self.max_rows = max_rows
        self._waiting: list[_W] = []  # in the order in which they will run
        self._rows = 0

    @property
    def first(self) -> _W | None:
        """The request that runs next; None when none waits."""
        return self._waiting[0] if self._waiting else None

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(
        self, request: _W, now_us: float = 0.0, run_us: float = 0.0, busy_us: float = 0.0
    ) -> Refused | None:
        """Take a request in; tells why not.

        Args:
            request: goes behind those of its priority.
            now_us: the time.
            run_us: how long a run takes.
            busy_us: how long the run that is going on still takes.
        """
        waiting = self._waiting
        at = len(waiting)
        if at >= self.max_waiting:
            return Refused.FULL
        while at and waiting[at - 1].priority > request.priority:
            at -= 1
        if request.deadline_us is not None:
            before = sum(other.rows for other in waiting[:at])
            runs = 1 + before // max(self.max_rows, 1)
            if now_us + busy_us + runs * run_us > request.deadline_us:
                return Refused.LATE
        waiting.insert(at, request)
        self._rows += request.rows
        self._bytes += request.bytes
        return None

    def withdraw(self, request: _W) -> bool:
        """Let a request go that waits; tells whether it did."""
        for place, other in enumerate(self._waiting):
            if other is request:
                self._keep([*self._waiting[:place], *self._waiting[place + 1 :]])
                return True
        return False

    def take(self, now_us: float = 0.0, run_us: float = 0.0) -> tuple[list[_W], list[_W]]:
        """The requests that run next, and those that would now end after their deadline."""
        late = [
            request
            for request in self._waiting
            if request.deadline_us is not None and now_us + run_us > request.deadline_us
        ]
        if late:
            gone = set(map(id, late))
            self._keep([request for request in self._waiting if id(request) not in gone])
        if not self._waiting:
            return [], late
        if self.max_rows == 1:
            first = self._waiting.pop(0)
            self._rows -= first.rows
            self._bytes -= first.bytes
            return [first], late
        key = self._waiting[0].key
        fits = self._rows <= self.max_rows and self._bytes <= self.max_bytes
        batch: list[_W] = []
        if fits and all(request.key is key for request in self._waiting):
            batch = self._waiting
            self._keep([])
            return batch, late
        left: list[_W] = []
        rows = size = 0
        closed = False
        for request in self._waiting:
            same = request.key == key
            fits = rows + request.rows <= self.max_rows and size + request.bytes <= self.max_bytes
            if same and not closed and (not batch or fits):
                batch.append(request)
                rows += request.rows
                size += request.bytes
            else:
                closed = closed or same  # nobody of the same kind overtakes
                left.append(request)
        self._keep(left)
        return batch, late

    def _keep(self, left: list[_W]) -> None:
        self._waiting = left
        self._rows = sum(request.rows for request in left)
        self._bytes = sum(request.bytes for request in left)
