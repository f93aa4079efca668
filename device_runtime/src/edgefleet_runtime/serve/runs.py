"""Runs requests, alone or together, on whichever thread, and has their answers written.

Rules kept here:

- When a batch fails, each of its requests runs by itself, so that one client's data spoils only its
  own answer; so does an answer that can't be written.
- Watchers, observers and the meter of the model see each request of a batch as if it had run alone.
- A model that was swapped away while requests queued is not an error: they are read and answered
  afresh by what is served now.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.errors import NotFoundError
from edgefleet_runtime.serve.outgoing import behind
from edgefleet_runtime.serve.plan import Joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgefleet_runtime.serve.table import ModelTable, Observer, ServedModel
    from edgefleet_runtime.serve.ticket import Ticket

    Arrays = Mapping[str, NDArray[Any]]
    Tickets = Sequence[Ticket[Any]]

_log = logging.getLogger(__name__)


class Runner:
    """Runs tickets for one served model; `run` may be called on any thread.

    Attributes:
        apart: whether batches gave each request its own rows so far.
    """

    def __init__(self, served: ServedModel, table: ModelTable) -> None:
        self.served = served
        self.apart = True
        self._table = table

    def run(self, batch: Tickets) -> list[Any]:
        """The answers, in order, each of its request's protocol; never raises."""
        served = self.served
        try:
            served.acquire()
        except NotFoundError:
            return [self._afresh(ticket) for ticket in batch]
        try:
            if len(batch) > 1:
                try:
                    return self._together(batch)
                except Exception as error:  # noqa: BLE001 - each gets its own below
                    _log.debug("a batch of %d failed: %s", len(batch), error)
            return [self._alone(served, ticket) for ticket in batch]
        finally:
            served.release()

    def refuse(self, ticket: Ticket[Any], error: Exception) -> Any:  # noqa: ANN401 - an answer
        """The answer to a request that isn't run, counted."""
        return _failed(self.served, ticket, error)

    def _afresh(self, ticket: Ticket[Any]) -> Any:  # noqa: ANN401 - an answer
        served = self.served
        try:
            with self._table.lease(ticket.name, ticket.version) as successor:
                served = successor
                ticket.read(served)
                return self._alone(served, ticket)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            return _failed(served, ticket, error)

    def _alone(self, served: ServedModel, ticket: Ticket[Any]) -> Any:  # noqa: ANN401 - an answer
        plan = ticket.plan
        start = time.perf_counter()
        try:
            inputs = plan.arrays(ticket.data)
            ready = time.perf_counter()
            watched = bool(self._table.observers)
            outputs, run_us = plan.run(served, inputs, watched=watched)
            answer = plan.writer.answer(served, outputs)
        except Exception as error:  # noqa: BLE001 - an answer is due, whatever failed
            return _failed(served, ticket, error)
        ticket.ok = True
        if ticket.trace is not None:
            answer = ticket.traced(answer)
        if self._table.observers:
            self._note(served, ticket, answer, outputs, run_us)
        now = time.perf_counter()
        served.requests.answered(
            1,
            (now - ticket.began) * 1e6,
            (start - ticket.began) * 1e6 - ticket.read_us,
            (ready - start) * 1e6 + ticket.read_us,
            run_us,
        )
        return answer

    def _together(self, batch: Tickets) -> list[Any]:
        served = self.served
        start = time.perf_counter()
        total = sum([ticket.rows for ticket in batch])
        inputs = _joined(batch, total)
        ready = time.perf_counter()
        outputs, run_us = served.infer(inputs, batch[0].plan.wanted, requests=len(batch))
        try:
            joined = Joined(outputs, total)
        except ValueError:
            self.apart = False
            raise
        answers = _alike(served, batch, joined)
        whole = answers is not None
        if answers is None:
            answers = _parted(served, batch, joined)
            whole = all(ticket.ok for ticket in batch)
        if self._table.observers:
            for ticket, answer, rows in zip(batch, answers, _apart(batch, outputs), strict=True):
                if ticket.ok:
                    self._note(served, ticket, answer, rows, run_us)
        if served.watchers:
            behind(self._tell, batch, inputs, outputs, run_us)
        good = batch if whole else [ticket for ticket in batch if ticket.ok]
        count, read_us = len(good), sum([ticket.read_us for ticket in good])
        began = sum([ticket.began for ticket in good])
        served.requests.answered(
            count,
            (count * time.perf_counter() - began) * 1e6,
            (count * start - began) * 1e6 - read_us,
            count * (ready - start) * 1e6 + read_us,
            count * run_us,
        )
        return answers

    def _tell(self, batch: Tickets, inputs: Arrays, outputs: Arrays, run_us: float) -> None:
        for mine, rows in zip(_apart(batch, inputs), _apart(batch, outputs), strict=True):
            self.served.tell(mine, rows, run_us)

    def _note(
        self,
        served: ServedModel,
        ticket: Ticket[Any],
        answer: Any,  # noqa: ANN401 - of any protocol
        outputs: Arrays,
        run_us: float,
    ) -> None:
        seen = (served, outputs, run_us, ticket.plan.id, ticket.trace)
        answer.after = partial(observe, self._table.observers, *seen)


def _joined(batch: Tickets, total: int) -> dict[str, NDArray[Any]]:
    """The inputs of all, one behind the other."""
    inputs: dict[str, NDArray[Any]] = {}
    for index, (name, dtype, row) in enumerate(batch[0].plan.columns):
        if dtype.hasobject:
            inputs[name] = np.concatenate([t.plan.arrays(t.data)[name] for t in batch])
            continue
        parts: list[Any] = [ticket.plan.raw(ticket.data, index) for ticket in batch]
        whole = np.frombuffer(b"".join(parts), dtype)
        inputs[name] = whole.reshape(total, *row)
    return inputs


def _apart(batch: Tickets, arrays: Arrays) -> Iterator[Arrays]:
    """The rows of each request of a run."""
    start = 0
    for ticket in batch:
        stop = start + ticket.rows
        yield {name: array[start:stop] for name, array in arrays.items()}
        start = stop


def _alike(served: ServedModel, batch: Tickets, joined: Joined) -> list[Any] | None:
    """The answers to requests that follow one plan; None where they don't, or one can't be made."""
    plan = batch[0].plan
    for ticket in batch:
        if ticket.plan is not plan or ticket.trace is not None:
            return None
    try:
        answers = plan.writer.parts(served, joined, plan.rows, len(batch))
    except Exception as error:  # noqa: BLE001 - each gets its own
        _log.debug("answers of %d requests aren't written together: %s", len(batch), error)
        return None
    for ticket in batch:
        ticket.ok = True
    return answers


def _parted(served: ServedModel, batch: Tickets, joined: Joined) -> list[Any]:
    """The answers, each made by itself."""
    answers: list[Any] = []
    at = 0
    for ticket in batch:
        stop = at + ticket.rows
        try:
            answer = ticket.plan.writer.part(served, joined, at, stop)
            ticket.ok = True
            if ticket.trace is not None:
                answer = ticket.traced(answer)
        except Exception as error:  # noqa: BLE001 - the others' answers are good
            answer = _failed(served, ticket, error)
        answers.append(answer)
        at = stop
    return answers


def _failed(served: ServedModel, ticket: Ticket[Any], error: Exception) -> Any:  # noqa: ANN401 - an answer
    served.requests.failed()
    ticket.ok = False
    ticket.lesson = None
    answer = ticket.told(error)
    return answer if ticket.trace is None else ticket.traced(answer)


def observe(observers: Sequence[Observer], *seen: Any) -> None:  # noqa: ANN401 - an observer's
    """Tell those who watch what was answered."""
    for observer in tuple(observers):
        try:
            observer(*seen)
        except Exception:  # noqa: BLE001 - the answer is given, and others watch too
            _log.exception("an observer of inferences failed")
