"""What `optimize` tried and what came of it: values that show themselves as tables."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.interfaces.amounts import size_text
from edgefleet.interfaces.tables import html_table, text_table
from edgefleet.interfaces.values import Value

if TYPE_CHECKING:
    import os

    from edgefleet.interfaces.pictures import Picture
    from edgefleet.optimization.closeness import Closeness
    from edgefleet.protocol.layout import BundleLayout

Outcome = Literal["shipped", "passed", "rejected", "not made", "not tried"]
"""``passed`` is what nobody asked for runs best; ``not tried``, what another made unneeded."""

NOT_MEASURED = "not measured"
HERE = "this machine"
LINEAGE = "report"
"""Key of a bundle's lineage."""
_CANDIDATES = ("candidate", "outcome", "size", "accuracy", "drop", "p50", "p99", "memory", "SNR")
_ON_DEVICE = ("on", "candidate", "outcome", "provider", "p50", "p99", "memory", "why")
_SHADES = {"shipped": "#d8ecd8", "passed": "#e8f0f8", "rejected": "#f6dcd6"}  # behind outcomes
_TARGETS = ("target", "variant", "p50", "p99", "measured on", "why")


class OutputRow(Value):
    """How close one output of a candidate lies to the model as given, on calibration samples.

    Attributes:
        output: its name.
        snr_db: signal to noise in dB; None where the two are equal, or one isn't finite.
        max_error: the largest difference.
    """

    output: str
    snr_db: float | None
    max_error: float

    @classmethod
    def of(cls, found: Closeness) -> OutputRow:
        """The row of what was found, rounded to what it tells."""
        return cls(
            output=found.output,
            snr_db=round(found.snr_db, 1) if math.isfinite(found.snr_db) else None,
            max_error=float(f"{found.max_error:.3g}"),
        )


class LayerRow(Value):
    """A layer that int8 costs much.

    Attributes:
        layer: name of its node.
        tensor: its tensor that loses most: weights, or what it computes.
        error: median relative error of that tensor's elements in 8 bits; 1 means that nothing is
            left of an ordinary value; None where it isn't finite.
    """

    layer: str
    tensor: str
    error: float | None


class CandidateRow(Value):
    """One candidate.

    Attributes:
        variant: its name, and its name in the bundle where it is shipped.
        precision: of its weights.
        format: of its files.
        outcome: shipped, passed (but of no use to a target asked for), rejected (by the gate), not
            made, or not tried, for an earlier one of its kind passed.
        why: in a phrase.
        targets: hardware targets that it is marked for; empty for any, or where it isn't shipped.
        size_bytes: of its files together; None where there are none.
        accuracy: what ``evaluate`` gave; None where it wasn't asked.
        accuracy_drop: lost against the model as given.
        worst_class: class of the lowest accuracy, where ``evaluate`` tells classes.
        worst_class_accuracy: its accuracy.
        outputs: closeness of each output to the model as given.
        layers: those that lost most, the worst first, of an int8 candidate that was rejected.
        p50_ms: median latency of a call with one sample, on this machine's CPU; None where no
            target asked for is like this machine.
        p99_ms: likewise the 99th percentile.
        memory_bytes: what loading and running it adds to a process; None where not measured.
    """

    variant: str
    precision: str
    outcome: Outcome
    why: str
    format: str = "onnx"
    targets: tuple[str, ...] = ()
    size_bytes: int | None = None
    accuracy: float | None = None
    accuracy_drop: float | None = None
    worst_class: str | None = None
    worst_class_accuracy: float | None = None
    outputs: tuple[OutputRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_bytes: int | None = None


class TargetRow(Value):
    """What one target gets.

    Attributes:
        target: its name.
        variant: what a device of that target will choose; None where nothing suits it.
        why: in a phrase; names what was passed over.
        p50_ms: median latency, measured where ``measured_on`` says; None where nowhere.
        p99_ms: likewise the 99th percentile.
        measured_on: this machine, or a device's name.
    """

    target: str
    variant: str | None
    why: str
    p50_ms: float | None = None
    p99_ms: float | None = None
    measured_on: str | None = None


class DeviceRow(Value):
    """What one candidate did on a real device.

    Attributes:
        variant: the candidate.
        device: the device's name.
        outcome: ``measured``; ``failed`` where it doesn't load, run or pass its self-test there;
            ``skipped`` where the device can't or may not try it.
        why: why it failed or was skipped.
        providers: execution providers read back there, the one in use first.
        p50_ms: median latency of a call with one sample.
        p99_ms: likewise the 99th percentile.
        memory_bytes: what loading and running it added to its process there.
        max_error: the largest difference that the self-test saw; None where there was none, or
            it wasn't finite.
    """

    variant: str
    device: str
    outcome: str
    why: str = ""
    providers: tuple[str, ...] = ()
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_bytes: int | None = None
    max_error: float | None = None


_MEASURED = frozenset({"p50_ms", "p99_ms", "memory_bytes", "measured_on", "machine", "on_device"})
"""What differs from one run to the next, and so stays out of a bundle."""


class OptimizationReport(Value):
    """Everything that one call of `optimize` found.

    Attributes:
        model: name of the model.
        machine: architecture on which latencies were measured; None in a report read from a
            bundle, which carries none.
        max_accuracy_drop: what the gate allowed.
        calibration_samples: 0 where no calibration data was given.
        rows: a row a candidate.
        targets: a row a target asked for.
        on_device: a row a candidate that a real device was given; empty without one.
    """

    model: str
    machine: str | None = None
    max_accuracy_drop: float
    calibration_samples: int
    rows: tuple[CandidateRow, ...]
    targets: tuple[TargetRow, ...]
    on_device: tuple[DeviceRow, ...] = ()

    def __str__(self) -> str:
        parts = [
            text_table(_CANDIDATES, map(_candidate_cells, self.rows), caption=self._caption()),
            "\n".join(f"{row.variant}: {row.why}" for row in self.rows),
            text_table(_TARGETS, map(_target_cells, self.targets)),
        ]
        if self.on_device:
            parts.append(text_table(_ON_DEVICE, map(_device_cells, self.on_device)))
        return "\n\n".join(parts)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        rows = [(*_candidate_cells(row), row.why) for row in self.rows]
        html = html_table((*_CANDIDATES, "why"), rows, caption=self._caption(), shades=_SHADES)
        html += html_table(_TARGETS, map(_target_cells, self.targets))
        if self.on_device:
            cells = map(_device_cells, self.on_device)
            html += html_table(_ON_DEVICE, cells, shades=_SHADES)
        return html

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

    def with_row(self, row: CandidateRow) -> OptimizationReport:
        """The same report with a variant that was made elsewhere, for the targets it names."""
        there = {found.target for found in self.targets}
        told = [
            TargetRow(target=name, variant=row.variant, why=row.why)
            for name in row.targets
            if name not in there
        ]
        targets = [
            TargetRow(target=found.target, variant=row.variant, why=row.why)
            if found.variant is None and found.target in row.targets
            else found
            for found in self.targets
        ]
        return self.model_copy(update={"rows": (*self.rows, row), "targets": (*targets, *told)})

    def _caption(self) -> str:
        allowed = f"at most {self.max_accuracy_drop:.4g} accuracy lost"
        measured = "" if self.machine is None else f", measured on {self.machine}"
        return f"{self.model}: {allowed}{measured}"

    def plot(self, path: str | os.PathLike[str] | None = None) -> Picture:
        """Accuracy over latency and over size, a mark a candidate, as a PNG that a notebook shows.

        The larger a mark, the larger the file. The grey line is the Pareto front: what no other
        candidate that may be shipped beats in both. What was not measured is not drawn.

        Args:
            path: of a file to write as well.

        Raises:
            MissingExtraError: matplotlib isn't installed.
        """
        from edgefleet.optimization.plot import draw

        return draw(self, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON, as `load_report` reads it."""
        Path(path).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dicts, lists and scalars."""
        return self.facts()

    def lasting(self) -> dict[str, Any]:
        """The report without what was measured in time and memory: the same at every run."""
        found: dict[str, Any] = _without(self.facts())
        return found


def load_report(path: str | os.PathLike[str]) -> OptimizationReport:
    """The report that `OptimizationReport.save` wrote.

    Raises:
        InvalidInputError: the file holds no report.
    """
    return _parsed(Path(path).read_bytes(), str(path))


def report_of(bundle: BundleLayout) -> OptimizationReport:
    """The report that travels in a bundle, also after it was pulled: without times and memory.

    Args:
        bundle: one that `optimize` made, in a folder.

    Raises:
        NotFoundError: it carries none, for it was made otherwise.
        InvalidInputError: what it carries can't be read by this version.
    """
    for variant in bundle.variants:
        text = bundle.details(variant.name).lineage.get(LINEAGE)
        if text is not None:
            return _parsed(text.encode(), f"bundle {bundle.digest[7:19]}")
    raise NotFoundError(
        f"bundle {bundle.digest[7:19]} carries no report", cure="only optimize() adds one"
    )


def _parsed(data: bytes, where: str) -> OptimizationReport:
    try:
        return OptimizationReport.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise InvalidInputError(
            f"the report of {where} can't be read: {first['msg']} at {first['loc']}",
            cure="read it with the version of edgefleet that wrote it, or a newer one",
        ) from error


def _without(facts: Any) -> Any:  # noqa: ANN401 - plain data, any of it
    if isinstance(facts, dict):
        return {key: _without(value) for key, value in facts.items() if key not in _MEASURED}
    return [_without(value) for value in facts] if isinstance(facts, list | tuple) else facts


def _candidate_cells(row: CandidateRow) -> tuple[str, ...]:
    ratios = [output.snr_db for output in row.outputs if output.snr_db is not None]
    return (
        row.variant,
        row.outcome,
        size_text(row.size_bytes),
        "-" if row.accuracy is None else f"{row.accuracy:.4f}",
        "-" if row.accuracy_drop is None else f"{row.accuracy_drop:.4f}",
        _milliseconds(row.p50_ms),
        _milliseconds(row.p99_ms),
        NOT_MEASURED if row.memory_bytes is None else size_text(row.memory_bytes),
        f"{min(ratios):.1f} dB" if ratios else "-",
    )


def _target_cells(row: TargetRow) -> tuple[str, ...]:
    return (
        row.target,
        row.variant or "none",
        _milliseconds(row.p50_ms),
        _milliseconds(row.p99_ms),
        row.measured_on or "-",
        row.why,
    )


def _device_cells(row: DeviceRow) -> tuple[str, ...]:
    return (
        row.device,
        row.variant,
        row.outcome,
        row.providers[0] if row.providers else "-",
        _milliseconds(row.p50_ms),
        _milliseconds(row.p99_ms),
        NOT_MEASURED if row.memory_bytes is None else size_text(row.memory_bytes),
        row.why,
    )


def _milliseconds(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.3g} ms"
