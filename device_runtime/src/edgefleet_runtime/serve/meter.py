"""Counts requests without a lock on their way: each thread counts in a cell of its own."""

from __future__ import annotations

from threading import get_ident
from typing import NamedTuple


class Totals(NamedTuple):
    """A model's requests since it was loaded.

    Attributes:
        answered: with outputs.
        failed: refused or broken off, whoever's fault it was.
        duration_us: from a request's last byte to its answer, of all that were answered together.
    """

    answered: int
    failed: int
    duration_us: float


class RequestMeter:
    """Counts one model's requests; any thread may call it."""

    __slots__ = ("_cells",)

    def __init__(self) -> None:
        self._cells: dict[int, _Cell] = {}

    def answered(self, duration_us: float) -> None:
        """Count a request that was answered after so many microseconds."""
        cell = self._cells.get(get_ident()) or self._new_cell()
        cell.answered += 1
        cell.duration_us += duration_us

    def failed(self) -> None:
        """Count a request that wasn't."""
        cell = self._cells.get(get_ident()) or self._new_cell()
        cell.failed += 1

    def totals(self) -> Totals:
        """The sums over all threads; a request that is being counted may be in one of them only."""
        cells = self._cells.copy().values()  # copied at once: threads may come while this sums up
        return Totals(
            answered=sum(cell.answered for cell in cells),
            failed=sum(cell.failed for cell in cells),
            duration_us=sum(cell.duration_us for cell in cells),
        )

    def _new_cell(self) -> _Cell:
        # An identifier is used again only after its thread has ended: no cell has two writers.
        return self._cells.setdefault(get_ident(), _Cell())


class _Cell:
    __slots__ = ("answered", "duration_us", "failed")

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.duration_us = 0.0
