"""What `optimize` tried and what came of it: values that show themselves as tables."""

from __future__ import annotations

from typing import Any, Literal

from edgefleet.errors import NotFoundError
from edgefleet.interfaces.amounts import size_text
from edgefleet.interfaces.tables import html_table, text_table
from edgefleet.interfaces.values import Value

Outcome = Literal["shipped", "rejected", "not made"]

NOT_MEASURED = "not measured"
_CANDIDATES = ("candidate", "outcome", "size", "accuracy", "drop", "p50", "p99")
_TARGETS = ("target", "variant", "p50", "why")


class CandidateRow(Value):
    """One candidate.

    Attributes:
        variant: its name in the bundle, where it is shipped.
        precision: of its weights.
        outcome: shipped, rejected (by the gate) or not made.
        why: in a phrase.
        targets: hardware targets that it is marked for; empty for any, or where it isn't shipped.
        size_bytes: of its files together; None where there are none.
        accuracy: what ``evaluate`` gave; None where it wasn't asked.
        accuracy_drop: lost against the model as given.
        p50_ms: median latency of a call with one sample, on this machine's CPU; None where no
            target asked for is like this machine.
        p99_ms: likewise the 99th percentile.
    """

    variant: str
    precision: str
    outcome: Outcome
    why: str
    targets: tuple[str, ...] = ()
    size_bytes: int | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None


class TargetRow(Value):
    """What one target gets.

    Attributes:
        target: its name.
        variant: what a device of that target will choose; None where nothing suits it.
        why: in a phrase; names what was passed over.
        p50_ms: median latency, measured here where the target is this machine's kind, otherwise
            None.
    """

    target: str
    variant: str | None
    why: str
    p50_ms: float | None = None


class OptimizationReport(Value):
    """Everything that one call of `optimize` found.

    Attributes:
        model: name of the model.
        machine: architecture on which latencies were measured.
        max_accuracy_drop: what the gate allowed.
        calibration_samples: 0 where no calibration data was given.
        rows: a row a candidate.
        targets: a row a target asked for.
    """

    model: str
    machine: str
    max_accuracy_drop: float
    calibration_samples: int
    rows: tuple[CandidateRow, ...]
    targets: tuple[TargetRow, ...]

    def __str__(self) -> str:
        return "\n\n".join(
            (
                text_table(_CANDIDATES, map(_candidate_cells, self.rows), caption=self._caption()),
                "\n".join(f"{row.variant}: {row.why}" for row in self.rows),
                text_table(_TARGETS, map(_target_cells, self.targets)),
            )
        )

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [(*_candidate_cells(row), row.why) for row in self.rows]
        return html_table((*_CANDIDATES, "why"), rows, caption=self._caption()) + html_table(
            _TARGETS, map(_target_cells, self.targets)
        )

    def row(self, variant: str) -> CandidateRow:
        """The candidate of that name.

        Raises:
            NotFoundError: there was none; the message lists those there were.
        """
        for row in self.rows:
            if row.variant == variant:
                return row
        names = ", ".join(row.variant for row in self.rows)
        raise NotFoundError(f"no candidate {variant!r} was tried", cure=f"choose one of {names}")

    def _caption(self) -> str:
        allowed = f"at most {self.max_accuracy_drop:.4g} accuracy lost"
        return f"{self.model}: {allowed}, measured on {self.machine}"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists and scalars."""
        return self.facts()


def _candidate_cells(row: CandidateRow) -> tuple[str, ...]:
    return (
        row.variant,
        row.outcome,
        size_text(row.size_bytes),
        "-" if row.accuracy is None else f"{row.accuracy:.4f}",
        "-" if row.accuracy_drop is None else f"{row.accuracy_drop:.4f}",
        _milliseconds(row.p50_ms),
        _milliseconds(row.p99_ms),
    )


def _target_cells(row: TargetRow) -> tuple[str, ...]:
    return (row.target, row.variant or "none", _milliseconds(row.p50_ms), row.why)


def _milliseconds(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3g} ms"
