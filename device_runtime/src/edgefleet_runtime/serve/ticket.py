"""A request on its way to a model and back, whatever protocol brought it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

from edgefleet.errors import EdgeFleetError, UnavailableError
from edgefleet_runtime.serve.messages import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from edgefleet_runtime.serve.plan import Plan
    from edgefleet_runtime.serve.table import ServedModel

A = TypeVar("A")

_UNJOINABLE = 1 << 62  # rows of a request that must run by itself


class Ticket(Pending[A], ABC):
    """A request; see `edgefleet_runtime.serve.queueing.Waiting`.

    Args:
        front: what took it in.
        source: the request in its protocol's form.
        data: its bytes.
        began: when the request came, on the clock of `time.perf_counter`.

    Attributes:
        name: of the model that is asked.
        version: likewise; None or empty for whichever is served.
        trace: its ``traceparent``, if it has one.
        origin: tells whoever sends one request after the other, never two at a time, from all
            others; None where nobody knows.
        plan: what it asks for; set by `follow`, as are ``key``, ``rows`` and ``priority``.
        deadline_us: when the answer is of no more use, on the clock of ``began`` in microseconds.
        lesson: called on the event loop's thread once the request was answered with outputs, so
            that the next one like it needs no reading.
        ok: whether it was.
        read_us: how long reading it took.
        leave: takes it out of the queue in which it waits.
    """

    # Defaults of the class: setting each of them for every request would be felt.
    name = ""
    version: str | None = None
    trace: str | None = None
    origin: int | None = None
    deadline_us: float | None = None
    lesson: Callable[[ServedModel], None] | None = None
    ok = False
    read_us = 0.0
    leave: Callable[[Ticket[Any]], None] | None = None
    plan: Plan[A]
    key: Hashable
    rows: int
    priority: int

    def __init__(self, front: Any, source: Any, data: bytes, began: float) -> None:  # noqa: ANN401 - a subclass knows its own
        self.front = front
        self.source = source
        self.data = data
        self.bytes = len(data)
        self.began = began

    def follow(self, plan: Plan[A]) -> None:
        """Take up what the request asks for."""
        self.plan = plan
        self.key = plan.key
        self.rows = plan.rows or _UNJOINABLE
        self.priority = plan.priority
        if plan.timeout_us is not None:
            ends = self.began * 1e6 + plan.timeout_us
            self.deadline_us = ends if self.deadline_us is None else min(ends, self.deadline_us)

    def read(self, served: ServedModel) -> None:
        """Find out what the request asks for, on whichever thread.

        Raises:
            EdgeFleetError: it is malformed, or asks for what isn't supported.
        """
        start = time.perf_counter()
        self.follow(self._read(served))
        self.read_us = (time.perf_counter() - start) * 1e6

    @abstractmethod
    def _read(self, served: ServedModel) -> Plan[A]:
        """The request's own plan."""

    @abstractmethod
    def told(self, error: Exception) -> A:
        """The answer that says what went wrong."""

    def traced(self, answer: A) -> A:
        """The answer with what its request's trace adds; called where there is one."""
        return answer

    def late(self, run_us: float) -> EdgeFleetError:
        """Why an answer can't be there in time (Triton has UNAVAILABLE and 503 for it too)."""
        return UnavailableError(f"the request's timeout can't be met: a run takes {run_us:.0f} us")

    def withdraw(self) -> None:
        if self.leave is not None:
            self.leave(self)
