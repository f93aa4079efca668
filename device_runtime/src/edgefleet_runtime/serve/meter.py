"""Counts requests without a lock on their way: each thread counts in a cell of its own."""

from __future__ import annotations

from threading import get_ident
from typing import NamedTuple


class Totals(NamedTuple):
    """A model's requests since it was loaded; times are of all that were answered together.

    Attributes:
        answered: with outputs.
        failed: refused or broken off, whoever's fault it was.
        duration_us: from a request's last byte to its answer.
        queue_us: of that, waiting for the model.
        input_us: of that, reading tensors and joining those of a batch.
        infer_us: of that, in the model; a batch's run counts for each of its requests.
    """

    answered: int
    failed: int
    duration_us: float
    queue_us: float
    input_us: float
    infer_us: float

    @property
    def output_us(self) -> float:
        """Of the duration, what was left: taking outputs apart and writing answers."""
        return self.duration_us - self.queue_us - self.input_us - self.infer_us


class RequestMeter:
    """Counts one model's requests; any thread may call it."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: dict[int, _Cell] = {}

    def answered(
        self, count: int, duration_us: float, queue_us: float, input_us: float, infer_us: float
    ) -> None:
        """Count requests that were answered; times in microseconds, of all of them together."""
        cell = self._cells.get(get_ident()) or self._new_cell()
        cell.answered += count
        cell.duration_us += duration_us
        cell.queue_us += queue_us
        cell.input_us += input_us
        cell.infer_us += infer_us

    def failed(self) -> None:
        """Count a request that wasn't."""
        cell = self._cells.get(get_ident()) or self._new_cell()
        cell.failed += 1

    def totals(self) -> Totals:
        """The sums over all threads; a request that is being counted may be in some of them."""
        cells = self._cells.copy().values()  # copied at once: threads may come while this sums up
        return Totals(
            answered=sum(cell.answered for cell in cells),
            failed=sum(cell.failed for cell in cells),
            duration_us=sum(cell.duration_us for cell in cells),
            queue_us=sum(cell.queue_us for cell in cells),
            input_us=sum(cell.input_us for cell in cells),
            infer_us=sum(cell.infer_us for cell in cells),
        )

    def _new_cell(self) -> _Cell:
        # An identifier is used again only after its thread has ended: no cell has two writers.
        return self._cells.setdefault(get_ident(), _Cell())


class _Cell:
    __slots__ = ("answered", "duration_us", "failed", "infer_us", "input_us", "queue_us")

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.duration_us = 0.0
        self.queue_us = 0.0
        self.input_us = 0.0
        self.infer_us = 0.0
