"""The way of requests to one model: they queue, run together where that pays, are answered.

Rules kept here:

- Nothing waits for company: a run starts once the model is free, with what has queued by then.
- A model that runs briefly does so on the event loop's thread, after the loop has read from all
  clients that had something to say; the others run in a pool. Handing a request to another thread
  and back costs about 200 µs on a small device.
- So a run that isn't short goes on there too, as long as one connection alone asks for anything.
- No more requests wait than allowed, those that are still being read included.
- Every request gets one answer: its own, or why there is none.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edgefleet.errors import CancelledError, NotFoundError, ThrottledError, UnavailableError
from edgefleet_runtime.serve import trial
from edgefleet_runtime.serve.queueing import Queue, Refused
from edgefleet_runtime.serve.runs import Runner

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from edgefleet_runtime.serve.door import Door
    from edgefleet_runtime.serve.messages import Pending
    from edgefleet_runtime.serve.table import ServedModel
    from edgefleet_runtime.serve.ticket import Ticket

A = TypeVar("A")

_log = logging.getLogger(__name__)

INLINE_RUN_US = 1000.0  # µs; five times a hand-over, and still short to other connections
INLINE_BODY_BYTES = 256 * 1024  # reading more takes as long as a run that isn't short
ALONE_RUN_US = 20_000.0  # µs that a run may keep others waiting of whom nothing was heard lately
ALONE = 4  # long runs in a row for one caller, after which nobody else seems to ask
FEW = 3  # requests that take longer to wait for each other than to run one by one
LONELY = 4  # runs in a row with so few, after which nobody else seems to ask
DIRECT = 63  # requests that then run at once, before it is looked again whether they meet
AHEAD = 1  # runs that the pool's threads have at hand, so that none waits for this one
AGAIN_S = (5.0, 60.0)  # after trials without a gain: the machine may have been busy with others


class Lane:
    """The requests to one served model; used on the event loop's thread."""

    def __init__(self, served: ServedModel, door: Door) -> None:
        self.served = served
        self._door = door
        self._leave = self.withdraw
        self._runner = Runner(served, door.table)
        self._queue: Queue[Ticket[Any]] = Queue(door.limits.max_requests)
        self._scheduled = False
        self._running = 0  # runs in the pool
        self._reading = 0  # requests that are read in the pool, and will queue
        self._lonely = 0  # runs in a row that found few requests
        self._direct = 0  # requests that needn't wait for others to be read
        self._again_s = [*AGAIN_S]
        self._tried = door.batching.max_rows < 2 or not trial.can_batch(served.model.interface)

    @property
    def max_rows(self) -> int:
        """How many rows run together."""
        return self._queue.max_rows

    @property
    def is_short(self) -> bool:
        """Whether the model runs briefly."""
        run_us = self.served.recent_p50_us
        return run_us is not None and run_us < INLINE_RUN_US

    def submit(self, ticket: Ticket[A], *, heard: bool = False) -> Pending[A] | A:
        """Answer a request that has been read, take it in, or refuse it.

        Args:
            ticket: the request.
            heard: whether it counts already among what its caller asked.
        """
        queue, door = self._queue, self._door
        if not heard and (ticket.origin is None or ticket.origin != door.origin):
            door.origin, door.alone = ticket.origin, 0
        run_us = self.served.recent_p50_us
        inline = run_us is not None and run_us < INLINE_RUN_US and ticket.bytes <= INLINE_BODY_BYTES
        if inline:
            if self._direct and not queue and ticket.deadline_us is None:
                self._direct -= 1
                return self._at_once(ticket)
        elif self._has_one_caller(ticket, heard=heard):
            return self._at_once(ticket)
        refused = queue.offer(ticket) if ticket.deadline_us is None else self._offer(ticket)
        if refused is Refused.FULL and inline:
            self._flush()  # the model is free, the loop just hasn't come to it yet
            refused = self._offer(ticket)
        if refused is not None:
            full = refused is Refused.FULL
            return self.refuse(ticket, self._overload() if full else self._late(ticket))
        ticket.leave = self._leave
        if inline:
            if not self._scheduled:
                self._scheduled = True
                door.loop.call_soon(self._flush)
        else:
            self._dispatch()
        return ticket

    def _at_once(self, ticket: Ticket[A]) -> A:
        answer: A = self._runner.run((ticket,))[0]
        if ticket.lesson is not None or not self._tried:
            self._learn(ticket)
        return answer

    def _has_one_caller(self, ticket: Ticket[Any], *, heard: bool = False) -> bool:
        """Whether a run that isn't short may go on here, because nobody else would wait for it."""
        run_us, door = self.served.recent_p50_us, self._door
        door.alone += not heard
        return (
            door.alone > ALONE
            and run_us is not None
            and run_us < ALONE_RUN_US
            and ticket.origin is not None
            and ticket.deadline_us is None
            and not (self._running or self._reading or self._queue)
        )

    def _offer(self, ticket: Ticket[Any]) -> Refused | None:
        run_us = self.served.recent_p50_us or 0.0
        busy_us = run_us if self._running >= self._width else 0.0
        return self._queue.offer(ticket, time.perf_counter() * 1e6, run_us, busy_us)

    def read(self, ticket: Ticket[A]) -> Pending[A] | A:
        """Take in a request that is long to read: in the pool, and run there if nobody waits."""
        if len(self._queue) + self._reading >= self._queue.max_waiting:
            return self.refuse(ticket, self._overload())
        if ticket.origin is None or ticket.origin != self._door.origin:
            self._door.origin, self._door.alone = ticket.origin, 0
        if self._has_one_caller(ticket):
            (answer,) = self._read_and_run(ticket)
            self._learn(ticket)
            return cast("A", answer)
        if self._running < self._width and not self._queue:
            self._start(partial(self._read_and_run, ticket), [ticket])
        else:
            self._reading += 1
            future = self._door.pool.submit(ticket.read, self.served)
            future.add_done_callback(partial(self._soon, self._has_read, ticket))
        return ticket

    def withdraw(self, ticket: Ticket[Any]) -> None:
        """Let a request go whose client is gone, unless it runs already."""
        if self._queue.withdraw(ticket):
            gone = CancelledError("the client has left before the request's turn came")
            ticket.deliver(self.refuse(ticket, gone))

    @property
    def _width(self) -> int:
        """How many runs may go on at once: one that takes all that wait, or one a thread."""
        return 1 if self._queue.max_rows > 1 else self._door.width

    def _flush(self) -> None:
        self._scheduled = False
        self._lonely = self._lonely + 1 if len(self._queue) <= FEW else 0
        if self._lonely >= LONELY:
            # The first of the next such runs may see only those that came after the last direct
            # one; the others see all that come.
            self._lonely, self._direct = 0, DIRECT
        while batch := self._take():
            self._deliver(batch, self._answers(batch))

    def _answers(self, batch: list[Ticket[Any]]) -> list[Any]:
        answers = self._runner.run(batch)
        if not self._runner.apart:
            self._queue.max_rows = 1
        return answers

    def _read_and_run(self, ticket: Ticket[Any]) -> list[Any]:
        try:
            ticket.read(self.served)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            return [self.refuse(ticket, error)]
        ends_us, run_us = ticket.deadline_us, self.served.recent_p50_us or 0.0
        if ends_us is not None and time.perf_counter() * 1e6 + run_us > ends_us:
            return [self.refuse(ticket, self._late(ticket))]
        return self._answers([ticket])

    def _dispatch(self) -> None:
        # A ticket's deliverer isn't set before its submit has returned: the pool takes longer.
        while self._may_start() and (batch := self._take()):
            self._start(partial(self._answers, batch), batch)

    def _count(self, running: int) -> None:
        """Take note of how many runs the pool has; those beyond its threads wait as others do."""
        self._running = running
        ahead = max(running - self._width, 0)
        self._queue.max_waiting = self._door.limits.max_requests - ahead

    def _may_start(self) -> bool:
        """Whether a thread of the pool is free for what waits, or will be at once."""
        width, first = self._width, self._queue.first
        if self._running < width or first is None:
            return first is not None
        return 1 < width > self._running - AHEAD and first.deadline_us is None

    def _start(self, work: Callable[[], list[Any]], batch: list[Ticket[Any]]) -> None:
        self._count(self._running + 1)
        future = self._door.pool.submit(work)
        future.add_done_callback(partial(self._soon, self._ran, batch))

    def _soon(self, call: Callable[..., None], about: Any, future: Future[Any]) -> None:  # noqa: ANN401 - what `call` takes
        """Go on where the requests are answered."""
        try:
            self._door.loop.call_soon_threadsafe(call, about, future)
        except RuntimeError:  # the loop is closed, and with it every connection
            _log.debug("answers came after the end")

    def _ran(self, batch: list[Ticket[Any]], future: Future[list[Any]]) -> None:
        self._count(self._running - 1)
        if future.cancelled():
            answers = [self.refuse(ticket, _stopping()) for ticket in batch]
        else:
            answers = future.result()
            self._dispatch()
        self._deliver(batch, answers)

    def _has_read(self, ticket: Ticket[Any], future: Future[None]) -> None:
        self._reading -= 1
        error = _stopping() if future.cancelled() else future.exception()
        if isinstance(error, Exception):
            ticket.deliver(self.refuse(ticket, error))
        elif (outcome := self.submit(ticket, heard=True)) is not ticket:
            ticket.deliver(outcome)

    def _deliver(self, batch: list[Ticket[Any]], answers: list[Any]) -> None:
        for ticket, answer in zip(batch, answers, strict=True):
            if ticket.lesson is not None or not self._tried:
                self._learn(ticket)
            ticket.deliver(answer)

    def _take(self) -> list[Ticket[Any]]:
        batch, late = self._queue.take(time.perf_counter() * 1e6, self.served.recent_p50_us or 0.0)
        for ticket in late:
            # Soon, because the connection may still be about to wait.
            refusal = self.refuse(ticket, self._late(ticket))
            self._door.loop.call_soon(_deliver, ticket, refusal)
        return batch

    def refuse(self, ticket: Ticket[A], why: Exception) -> A:
        """The answer to a request that is not run, counted."""
        answer: A = self._runner.refuse(ticket, why)
        return answer

    def _late(self, ticket: Ticket[Any]) -> Exception:
        return ticket.late(self.served.recent_p50_us or 0.0)

    def _overload(self) -> Exception:
        waiting = len(self._queue) + self._reading
        return ThrottledError(f"{waiting} requests are waiting", cure="try again later")

    def _learn(self, ticket: Ticket[Any]) -> None:
        """Use an answered request to make the next ones quicker."""
        if not ticket.ok:
            return
        if ticket.lesson is not None:
            try:
                ticket.lesson(self.served)
            except Exception:  # noqa: BLE001 - the answers of a whole batch are still due
                _log.exception("what a request to %s taught was not kept", self.served.name)
        if not self._tried and ticket.plan.rows:
            self._tried = True
            self._door.pool.submit(self._try, ticket)

    def _try(self, ticket: Ticket[Any]) -> None:
        """Find out whether batches pay."""
        served = self.served
        try:
            served.acquire()
        except NotFoundError:
            return
        try:
            inputs, wanted = ticket.plan.arrays(ticket.data), ticket.plan.wanted
            limits = self._door.batching
            self._queue.max_rows = trial.max_rows(served.model, inputs, wanted, limits)
            _log.info("%s runs up to %d rows together", served.name, self._queue.max_rows)
        except Exception as error:  # noqa: BLE001 - without batches it serves as well
            _log.info("%s runs each request by itself: %s", served.name, error)
        finally:
            served.release()
        if self._queue.max_rows == 1 and self._again_s:
            with suppress(RuntimeError):  # the loop is closed
                self._door.loop.call_soon_threadsafe(self._try_again, self._again_s.pop(0))

    def _try_again(self, after_s: float) -> None:
        def let() -> None:
            self._tried = False

        self._door.loop.call_later(after_s, let)


def _stopping() -> Exception:
    return UnavailableError("the server is stopping")


def _deliver(ticket: Ticket[A], answer: A) -> None:
    ticket.deliver(answer)
