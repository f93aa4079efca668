"""The lanes of all models, with the threads they share: one way for the requests of all protocols.

The servers of a process share it, so that requests queue together however they came. Used on the
event loop's thread that those servers run on.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from edgefleet_runtime.serve.lane import Lane
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.queueing import BatchLimits

if TYPE_CHECKING:
    from collections.abc import Hashable

    from edgefleet_runtime.serve.messages import Pending
    from edgefleet_runtime.serve.plan import Plan
    from edgefleet_runtime.serve.table import ModelTable, ServedModel
    from edgefleet_runtime.serve.ticket import Ticket

A = TypeVar("A")

_MAX_KEYS = 256


class Lanes:
    """The lanes of a process's servers.

    Args:
        table: the models.
        limits: how much is taken in.
        batching: how large batches may become.
        threads: for models that run long; 0 for as many as the machine has cores.

    Attributes:
        width: how many threads those are.
        pool: those threads, while a server runs.
        loop: the event loop of the servers, likewise.
    """

    pool: ThreadPoolExecutor
    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        table: ModelTable,
        *,
        limits: Limits | None = None,
        batching: BatchLimits | None = None,
        threads: int = 0,
    ) -> None:
        self.table = table
        self.limits = limits or Limits()
        self.batching = batching or BatchLimits()
        self.width = threads or os.cpu_count() or 1
        self._users = 0
        self._lanes: dict[ServedModel, Lane] = {}
        self._keys: dict[Hashable, Hashable] = {}

    def open(self) -> None:
        """Take requests for one more server, on the event loop that runs."""
        if not self._users:
            self.loop = asyncio.get_running_loop()
            self.pool = ThreadPoolExecutor(self.width, thread_name_prefix="edgefleet-infer")
        self._users += 1

    def close(self) -> None:
        """End what `open` began; with the last server what waits for a thread is refused."""
        self._users -= 1
        if not self._users:
            self.pool.shutdown(wait=False, cancel_futures=True)
            self._lanes = {}

    def lane(self, served: ServedModel) -> Lane:
        """The lane of a model."""
        lane = self._lanes.get(served)
        if lane is None:
            present = set(map(id, self.table))
            self._lanes = {m: lane for m, lane in self._lanes.items() if id(m) in present}
            lane = self._lanes[served] = Lane(served, self)
        return lane

    def take(self, ticket: Ticket[A], served: ServedModel, *, light: bool) -> Pending[A] | A:
        """Read a request and answer it, now or later.

        Args:
            ticket: as it came.
            served: what it asks for.
            light: whether reading it is short to other connections.
        """
        lane = self.lane(served)
        if not light:
            return lane.read(ticket)
        try:
            ticket.read(served)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            return lane.refuse(ticket, error)
        return lane.submit(ticket)

    def intern(self, plan: Plan[Any]) -> None:
        """Make equal keys of plans that are kept one object, which is quicker to compare."""
        if len(self._keys) >= _MAX_KEYS:
            self._keys.clear()
        plan.key = self._keys.setdefault(plan.key, plan.key)
