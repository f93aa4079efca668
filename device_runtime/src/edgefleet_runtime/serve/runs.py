"""Runs planned requests, alone or together, on whichever thread, and makes their answers.

Rules kept here:

- When a batch fails, each of its requests runs by itself, so that one client's data spoils only its
  own answer.
- Watchers, observers and the meter of the model see each request of a batch as if it had run alone.
- A model that was swapped away while requests queued is not an error: they are answered afresh.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import NotFoundError
from edgefleet_runtime.serve.messages import Pending, Prepared, Request, Response
from edgefleet_runtime.serve.trace import trace_of, traced

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.messages import Limits, Template
    from edgefleet_runtime.serve.plan import Plan
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

    Outputs = Mapping[str, NDArray[Any]]
    Answer = Response | Prepared

_log = logging.getLogger(__name__)

_VIEWED_FROM = 1 << 16  # bytes; of smaller outputs a copy is cheaper than views
_UNJOINABLE = 1 << 62  # rows of a request that must run by itself


class Ticket(Pending):
    """A request on its way; see `edgefleet_runtime.serve.queueing.Waiting`.

    Args:
        plan: its JSON header's.
        request: as it came.
        version: of the model, as the client asks for it.
        began: when the request came, on the clock of `time.perf_counter`.
    """

    __slots__ = (
        "began",
        "bytes",
        "deadline_us",
        "key",
        "plan",
        "priority",
        "request",
        "rows",
        "trace",
        "version",
    )

    def __init__(self, plan: Plan, request: Request, version: str | None, began: float) -> None:
        self.began = began
        self.trace = trace_of(request.headers)
        self.plan = plan
        self.request = request
        self.version = version
        self.key = plan.key
        self.rows = plan.rows or _UNJOINABLE
        self.bytes = plan.body_bytes
        self.priority = plan.priority
        self.deadline_us: float | None = None


class Door:
    """What the lanes of a server share with it.

    Attributes:
        table: where the models are.
        loop: the event loop.
        pool: threads for what runs long.
        width: how many those are.
        limits: how much is taken in.
        again: answers a request to a model of that name and version, which came at that time, from
            the beginning.
        failed: says why a model of that name gave no answer.
        observe: tells those who watch what was answered.
    """

    def __init__(
        self,
        *,
        table: ModelTable,
        loop: asyncio.AbstractEventLoop,
        pool: ThreadPoolExecutor,
        width: int,
        limits: Limits,
        again: Callable[[Request, str, str | None, float], Response],
        failed: Callable[[str, Exception], Response],
        observe: Callable[[ServedModel, Outputs, float, str | None, str | None], None],
    ) -> None:
        self.table = table
        self.loop = loop
        self.pool = pool
        self.width = width
        self.limits = limits
        self.again = again
        self.failed = failed
        self.observe = observe


class Runner:
    """Runs tickets for one served model; `run` may be called on any thread.

    Attributes:
        apart: whether batches gave each request its own rows so far.
    """

    def __init__(self, served: ServedModel, door: Door) -> None:
        self.served = served
        self.apart = True
        self._door = door

    def run(self, batch: list[Ticket]) -> list[Answer]:
        """The answers, in order; never raises."""
        served = self.served
        try:
            served.acquire()
        except NotFoundError:
            again, name = self._door.again, served.name
            return [again(t.request, name, t.version, t.began) for t in batch]
        try:
            answers = self._ran(batch)
        finally:
            served.release()
        now = time.perf_counter()
        for index, ticket in enumerate(batch):
            answer = answers[index]
            if isinstance(answer, Prepared):
                served.requests.answered((now - ticket.began) * 1e6)
            else:
                served.requests.failed()
            if ticket.trace is not None:  # no template has it
                whole = answer.response() if isinstance(answer, Prepared) else answer
                answers[index] = traced(whole, ticket.trace)
        return answers

    def _ran(self, batch: list[Ticket]) -> list[Answer]:
        """The answers; those that are `Prepared` have outputs."""
        if len(batch) > 1:
            try:
                return self._together(batch)
            except Exception as error:  # noqa: BLE001 - each gets its own below
                _log.debug("a batch of %d failed: %s", len(batch), error)
        return [self._alone(ticket) for ticket in batch]

    def _alone(self, ticket: Ticket) -> Answer:
        plan, served = ticket.plan, self.served
        try:
            outputs, run_us = served.infer(plan.arrays(ticket.request.body), plan.wanted)
            answer = plan.answer(served.name, served.version, outputs)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            return self._door.failed(served.name, error)
        if self._door.table.observers:
            answer.after = partial(
                self._door.observe, served, outputs, run_us, plan.id, ticket.trace
            )
        return answer

    def _together(self, batch: list[Ticket]) -> list[Answer]:
        served = self.served
        first = batch[0].plan
        total = sum([ticket.rows for ticket in batch])
        inputs: dict[str, NDArray[Any]] = {}
        for index, (name, dtype, shape, _, _) in enumerate(first.inputs):
            parts = []
            for ticket in batch:
                _, _, _, start, stop = ticket.plan.inputs[index]
                parts.append(ticket.request.body[start:stop])
            inputs[name] = np.frombuffer(b"".join(parts), dtype).reshape(total, *shape[1:])
        outputs, run_us = served.infer(inputs, first.wanted, requests=len(batch))
        columns = [
            (array.shape[1:], _bytes_of(array), array.nbytes // total)
            for array in outputs.values()
            if array.shape[:1] == (total,)
        ]
        if len(columns) != len(outputs):
            self.apart = False
            raise ValueError("outputs don't have the rows of inputs")
        answers: list[Answer] = []
        start = 0
        last: Plan | None = None
        template: Template | None = None
        for ticket in batch:
            stop = start + ticket.rows
            if template is None or ticket.plan is not last:
                last = ticket.plan
                shapes = tuple((last.rows, *tail) for tail, _, _ in columns)
                rows = {name: array[start:stop] for name, array in outputs.items()}
                key = shapes[0] if len(shapes) == 1 else shapes
                template = last.template(served.name, served.version, key, rows)
            pieces = [data[start * size : stop * size] for _, data, size in columns]
            answer = Prepared(template, pieces[0] if len(pieces) == 1 else b"".join(pieces))
            answers.append(answer)
            start = stop
        if self._door.table.observers or served.watchers:
            self._tell(batch, answers, inputs, outputs, run_us)
        return answers

    def _tell(
        self,
        batch: list[Ticket],
        answers: list[Answer],
        inputs: Outputs,
        outputs: Outputs,
        run_us: float,
    ) -> None:
        """Tell watchers of each request's rows now, and observers once it is answered."""
        served, observed = self.served, bool(self._door.table.observers)
        start = 0
        for ticket, answer in zip(batch, answers, strict=True):
            stop = start + ticket.rows
            rows = {name: array[start:stop] for name, array in outputs.items()}
            if observed:
                about = (served, rows, run_us, ticket.plan.id, ticket.trace)
                answer.after = partial(self._door.observe, *about)
            served.tell({name: array[start:stop] for name, array in inputs.items()}, rows, run_us)
            start = stop


def _bytes_of(array: NDArray[Any]) -> bytes | memoryview:
    if array.nbytes < _VIEWED_FROM:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
