"""What `drift` finds: values that show themselves as text, tables, JSON and a picture."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from edgefleet.analysis.drift_rows import (
    Distribution,
    FeatureDrift,
    SetAside,
    Stretch,
    UnitDrift,
    worst,
)
from edgefleet.errors import NotFoundError
from edgefleet.interfaces.tables import html_table, text_table
from edgefleet.interfaces.values import Value
from edgefleet.protocol.drift import MASS_ERROR, RANK_ERROR, Verdict

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from edgefleet.interfaces.pictures import Picture

ERROR_BOUND = (
    f"sketches: with 99 % confidence KS and the share outside are off by at most "
    f"{2 * RANK_ERROR:.2%}, the mass of a bin by {MASS_ERROR:.2%}, however many are merged; "
    f"classes are counted exactly"
)
_UNITS = ("level", "unit", "version", "verdict", "why", "windows", "covered", "requests", "own")
_FEATURES = ("feature", "unit", "version", "verdict", "PSI", "KS", "JS", "missing", "outside",
             "seen", "own")  # fmt: skip
_SHADES = {"moved": "#f6dcd6", "watch": "#f6efd0", "stable": "#d8ecd8"}  # behind verdicts
_MOST_LINES = 40  # of a table in text; JSON has them all


class DriftReport(Value):
    """Everything that one call of `Fleet.drift` found.

    Attributes:
        model: its name.
        since: of the events; None for all there are.
        until: likewise.
        units: a row a unit and version, the fleet first, then the worst first.
        features: likewise a row a feature.
        timeline: features of the fleet over time.
        distributions: of the fleet's features.
        silent: devices that say that they serve the model, and of which there is no window.
        unreferenced: versions and bundles whose windows have nothing to be held against, with the
            reason.
        set_aside: sketches that couldn't be used; the first hundred.
        set_aside_count: how many there were.
        unreadable: segments that couldn't be read, with the reason.
        error_bound: what sketches may be off by.
    """

    model: str
    since: datetime | None = None
    until: datetime | None = None
    units: tuple[UnitDrift, ...] = ()
    features: tuple[FeatureDrift, ...] = ()
    timeline: tuple[Stretch, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    silent: tuple[str, ...] = ()
    unreferenced: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    set_aside: tuple[SetAside, ...] = ()
    set_aside_count: int = 0
    unreadable: dict[str, str] = {}  # noqa: RUF012 - likewise
    error_bound: str = ERROR_BOUND

    @property
    def verdict(self) -> Verdict:
        """That of the fleet, over the versions seen; ``unknown`` where nothing was."""
        return worst(unit.verdict for unit in self.units if unit.level == "fleet")

    @property
    def moved(self) -> tuple[str, ...]:
        """Names of the fleet's features that have moved, the worst first."""
        return tuple(
            row.feature for row in self.features if row.level == "fleet" and row.verdict == "moved"
        )

    def of(self, unit: str, version: str | None = None) -> UnitDrift:
        """A unit's row; of the newest version that it has windows of, unless one is given.

        Raises:
            NotFoundError: there is none; the message lists those there are.
        """
        found = [
            row
            for row in self.units
            if row.unit == unit and (version is None or row.version == version)
        ]
        if not found:
            there = ", ".join(dict.fromkeys(row.unit for row in self.units)) or "none"
            raise NotFoundError(f"no windows of {unit!r}", cure=f"units there are: {there}"[:500])
        return max(found, key=lambda row: _numeric(row.version))

    def __str__(self) -> str:
        parts = [text_table(_UNITS, _few(map(_unit_cells, self.units)), caption=self._caption())]
        rows = [row for row in self.features if row.level == "fleet"]
        if rows:
            parts.append(text_table(_FEATURES, _few(map(_feature_cells, rows))))
        return "\n\n".join([*parts, "\n".join(self._notes())])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        units = map(_unit_cells, self.units)
        rows = [row for row in self.features if row.level == "fleet"]
        return (
            html_table(_UNITS, units, caption=self._caption(), shades=_SHADES)
            + html_table(_FEATURES, map(_feature_cells, rows), shades=_SHADES)
            + "".join(f"<p>{escape(note)}</p>" for note in self._notes())
        )

    def to_json(self) -> str:
        """The report as JSON."""
        return self.model_dump_json(indent=2)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Picture:
        """PSI of each feature over time, and the distributions of the worst, as a PNG.

        Args:
            path: of a file to write as well.

        Raises:
            MissingExtraError: matplotlib isn't installed.
        """
        from edgefleet.analysis.drift_plot import draw

        figures = (self.features, self.timeline, self.distributions)
        return draw(f"{self.model}: {self.verdict}", self._newest(), *figures, path=path)

    def _newest(self) -> str | None:
        versions = [row.version for row in self.units if row.level == "fleet"]
        return max(versions, key=_numeric, default=None)

    def _caption(self) -> str:
        span = "" if self.since is None else f" since {self.since:%Y-%m-%d %H:%M} UTC"
        return f"{self.model}{span}: {self.verdict}"

    def _notes(self) -> Iterator[str]:
        if not self.units and not self.unreferenced:
            yield "no windows of sketches: set `drift` in the telemetry policy of the release"
        if self.silent:
            yield f"no windows from {_names(self.silent)}"
        for what, why in self.unreferenced.items():
            yield f"{what}: {why}"
        if self.set_aside_count:
            first = self.set_aside[0]
            yield (
                f"{self.set_aside_count} sketches set aside, the first of {first.device}: "
                f"{first.why}"
            )
        if self.unreadable:
            yield f"{len(self.unreadable)} segments couldn't be read: {_names(self.unreadable)}"
        yield self.error_bound


def _numeric(version: str) -> tuple[int, str]:
    return (int(version), "") if version.isdigit() else (-1, version)


def _names(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    rest = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {rest} more" if rest > 0 else "")


def _few(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    listed = list(rows)
    rest = len(listed) - _MOST_LINES
    if rest <= 0:
        return listed
    blank = ("",) * (len(listed[0]) - 1)
    return [*listed[:_MOST_LINES], (f"{rest} more", *blank)]


def _unit_cells(row: UnitDrift) -> tuple[str, ...]:
    return (
        row.level,
        row.unit,
        row.version,
        row.verdict,
        row.why,
        str(row.windows),
        f"{row.covered:.0%}",
        str(row.requests),
        row.own,
    )


def _feature_cells(row: FeatureDrift) -> tuple[str, ...]:
    figures = ("-" if value is None else f"{value:.3f}" for value in (row.psi, row.ks, row.js))
    return (
        row.feature,
        row.unit,
        row.version,
        row.verdict,
        *figures,
        f"{row.missing:+.1%}",
        f"{row.outside:.1%}",
        str(row.count),
        row.own,
    )
