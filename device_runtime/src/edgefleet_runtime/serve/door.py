"""What the lanes of a process share: models, bounds, threads and an event loop."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.queueing import BatchLimits

if TYPE_CHECKING:
    from edgefleet_runtime.serve.table import ModelTable


class Door:
    """The models, bounds and threads that the lanes of a process share.

    Args:
        table: the models.
        limits: how much is taken in.
        batching: how large batches may become.
        threads: for models that run long; 0 for as many as the machine has cores.

    Attributes:
        width: how many threads those are.
        origin: of the last request, as of `edgefleet_runtime.serve.ticket.Ticket`.
        alone: how many long runs were asked from there since another one asked for anything.
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
        self.origin: int | None = None
        self.alone = 0
        self._users = 0

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
