"""The way of planned requests to one model: they queue, run together where that pays, are answered.

Rules kept here:

- Nothing waits for company: a run starts once the model is free, with what has queued by then.
- A model that runs briefly does so on the event loop's thread, after the loop has read from all
  clients that had something to say; the others run in a pool.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from edgefleet.errors import NotFoundError
from edgefleet_runtime.serve import trial
from edgefleet_runtime.serve.messages import Pending, Prepared, Response, overloaded, refusal
from edgefleet_runtime.serve.queueing import Queue, Refused
from edgefleet_runtime.serve.runs import Runner, Ticket
from edgefleet_runtime.serve.trace import traced

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.plan import Plan
    from edgefleet_runtime.serve.runs import Door
    from edgefleet_runtime.serve.table import ServedModel

    Answer = Response | Prepared

_log = logging.getLogger(__name__)

MAX_PLANS = 64
LONELY = 4  # runs in a row with one request, after which nobody else seems to ask
DIRECT = 31  # requests that then run at once, before it is looked again whether they meet


class Lane:
    """The planned requests of one served model; used on the event loop's thread."""

    def __init__(self, served: ServedModel, door: Door) -> None:
        self.served = served
        self.plans: dict[bytes, Plan] = {}
        self._door = door
        self._runner = Runner(served, door)
        self._queue: Queue[Ticket] = Queue(door.limits.max_requests)
        self._keys: dict[Any, Any] = {}
        self._scheduled = False
        self._running = 0
        self._lonely = 0  # runs in a row that found only one request
        self._direct = 0  # requests that needn't wait for others to be read
        self._tried = not trial.can_batch(served.model.interface)

    @property
    def max_rows(self) -> int:
        """How many rows run together."""
        return self._queue.max_rows

    def learn(self, header: bytes, plan: Plan) -> None:
        """Remember a plan, which a request has followed already."""
        if len(self.plans) >= MAX_PLANS:
            self.plans.clear()
            self._keys.clear()
        plan.key = self._keys.setdefault(plan.key, plan.key)
        self.plans[header] = plan

    def consider(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] | None) -> None:
        """Find out in the pool, once, whether batches pay; ``inputs`` are those of a request."""
        if self._tried:
            return
        self._tried = True
        self._door.pool.submit(self._try, inputs, outputs)

    def submit(self, ticket: Ticket, *, inline: bool) -> Pending | Answer:
        """Answer a request at once, take it in, or refuse it.

        Args:
            ticket: with a plan of this lane's.
            inline: run on this thread.
        """
        queue, door, plan = self._queue, self._door, ticket.plan
        if inline and self._direct and not queue and plan.timeout_us is None:
            self._direct -= 1
            return self._runner.run([ticket])[0]
        if inline and len(queue) >= queue.max_waiting:
            self._flush()  # the model is free, the loop just hasn't come to it yet
        if plan.timeout_us is None:
            refused = queue.offer(ticket)
        else:
            now_us = time.perf_counter() * 1e6
            ticket.deadline_us = now_us + plan.timeout_us
            run_us = self.served.recent_p50_us or 0.0
            busy_us = run_us if self._running >= self._width else 0.0
            refused = queue.offer(ticket, now_us, run_us, busy_us)
        if refused is not None:
            return self._refusal(ticket, refused)
        if inline:
            if not self._scheduled:
                self._scheduled = True
                door.loop.call_soon(self._flush)
        elif self._running < self._width:
            self._dispatch()
        return ticket

    @property
    def _width(self) -> int:
        """How many runs may go on at once: one that takes all that wait, or one a thread."""
        return 1 if self._queue.max_rows > 1 else self._door.width

    def _flush(self) -> None:
        self._scheduled = False
        self._lonely = self._lonely + 1 if len(self._queue) == 1 else 0
        if self._lonely >= LONELY:
            self._direct = DIRECT
        while batch := self._take():
            for ticket, answer in zip(batch, self._answers(batch), strict=True):
                ticket.deliver(answer)

    def _answers(self, batch: list[Ticket]) -> list[Answer]:
        answers = self._runner.run(batch)
        if not self._runner.apart:
            self._queue.max_rows = 1
        return answers

    def _dispatch(self) -> None:
        # A ticket's deliverer isn't set before its submit has returned: the pool takes longer.
        while self._running < self._width and (batch := self._take()):
            self._running += 1
            future = self._door.pool.submit(self._answers, batch)
            future.add_done_callback(partial(self._ran_elsewhere, batch))

    def _ran_elsewhere(self, batch: list[Ticket], future: Future[list[Answer]]) -> None:
        try:
            self._door.loop.call_soon_threadsafe(self._ran, batch, future)
        except RuntimeError:  # the loop is closed, and with it every connection
            _log.debug("%d answers came after the end", len(batch))

    def _ran(self, batch: list[Ticket], future: Future[list[Answer]]) -> None:
        self._running -= 1
        if future.cancelled():
            answers: list[Answer] = []
            for ticket in batch:
                self.served.requests.failed()
                answers.append(traced(refusal(503, "the server is stopping"), ticket.trace))
        else:
            answers = future.result()
            self._dispatch()
        for ticket, answer in zip(batch, answers, strict=True):
            ticket.deliver(answer)

    def _take(self) -> list[Ticket]:
        batch, late = self._queue.take(time.perf_counter() * 1e6, self.served.recent_p50_us or 0.0)
        for ticket in late:
            # Soon, because the connection may still be about to wait.
            self._door.loop.call_soon(_deliver, ticket, self._refusal(ticket, Refused.LATE))
        return batch

    def _refusal(self, ticket: Ticket, why: Refused) -> Response:
        self.served.requests.failed()
        if why is Refused.FULL:
            answer = overloaded(f"{len(self._queue)} requests are waiting", self._door.limits)
        else:
            answer = too_late(self.served.recent_p50_us)
        return traced(answer, ticket.trace)

    def _try(self, inputs: Mapping[str, NDArray[Any]], outputs: tuple[str, ...] | None) -> None:
        served = self.served
        try:
            served.acquire()
        except NotFoundError:
            return
        try:
            self._queue.max_rows = trial.max_rows(served.model, inputs, outputs)
            _log.info("%s runs up to %d rows together", served.name, self._queue.max_rows)
        except Exception as error:  # noqa: BLE001 - without batches it serves as well
            _log.info("%s runs each request by itself: %s", served.name, error)
        finally:
            served.release()


def too_late(run_us: float | None) -> Response:
    """The answer to a request whose time limit can't be met (Triton answers with 503 too)."""
    return refusal(503, f"the request's timeout can't be met: a run takes {run_us or 0:.0f} us")


def _deliver(ticket: Ticket, answer: Answer) -> None:
    ticket.deliver(answer)
