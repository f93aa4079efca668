"""What `losses` finds: values that show themselves as text, tables, JSON and a picture."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from edgefleet.interfaces.tables import html_table, text_table
from edgefleet.interfaces.values import Value

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from edgefleet.interfaces.pictures import Picture

_COLUMNS = ("kind", "seen", "kept", "dropped", "dropped, %")
_MOST_LINES = 40  # of a table in text; JSON has them all


class Kept(Value):
    """How many events of a kind there were, and how many of them had to go.

    Attributes:
        kind: of event.
        name: of the model, class, score band, device or day that the row is about; empty for all.
        seen: all of them.
        dropped: those that no segment will hold.
    """

    kind: str
    name: str = ""
    seen: int
    dropped: int

    @property
    def kept(self) -> int:
        """Those that were not dropped: sent, or still waiting on their device."""
        return self.seen - self.dropped


class Damage(Value):
    """A device's spool was damaged on its disk; the message says what was lost with it."""

    device: str
    time: datetime
    message: str


class Unreadable(Value):
    """An event that should be an account, and isn't."""

    device: str
    event: str
    why: str


class Losses(Value):
    """Everything that one call of `Fleet.losses` found.

    Attributes:
        model: tallies of this one only; None for all.
        since: of the days; None for all there are.
        until: likewise.
        devices: how many accounted for anything.
        kinds: a row a kind, the most frequent first; so all that follow.
        models: a row a kind and model, or stream.
        classes: a row a kind and class, of events with scores.
        bands: a row a kind and tenth of the score, likewise.
        by_device: a row a kind and device.
        days: a row a kind and day, by the devices' clocks.
        damages: spools that were damaged.
        unaccounted: by device how many more events its report says were dropped than its accounts:
            lost before the spool, or the account is on its way. Only where no span or model is
            given, as a report tells of all time.
        unusable: events that should be accounts and aren't; the first hundred.
        unusable_count: how many there were.
        unreadable: segments that couldn't be read, with the reason.
    """

    model: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    devices: int = 0
    kinds: tuple[Kept, ...] = ()
    models: tuple[Kept, ...] = ()
    classes: tuple[Kept, ...] = ()
    bands: tuple[Kept, ...] = ()
    by_device: tuple[Kept, ...] = ()
    days: tuple[Kept, ...] = ()
    damages: tuple[Damage, ...] = ()
    unaccounted: dict[str, int] = {}  # noqa: RUF012 - pydantic copies it
    unusable: tuple[Unreadable, ...] = ()
    unusable_count: int = 0
    unreadable: dict[str, str] = {}  # noqa: RUF012 - likewise

    @property
    def summary(self) -> str:
        """One sentence: what was kept of each kind."""
        if not self.kinds:
            return "no accounts"
        parts = (
            f"{row.kept:,} of {row.seen:,} {_plural(row.kind, row.seen)}" for row in self.kinds
        )
        return "kept " + ", ".join(parts)

    @property
    def dropped(self) -> int:
        """How many events of all kinds had to go."""
        return sum(row.dropped for row in self.kinds)

    def __str__(self) -> str:
        parts = [self.summary]
        parts += [text_table(columns, _few(rows)) for columns, rows in self._tables()]
        notes = "\n".join(self._notes())
        return "\n\n".join([*parts, notes] if notes else parts)

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        tables = "".join(html_table(columns, rows) for columns, rows in self._tables())
        notes = "".join(f"<p>{escape(note)}</p>" for note in self._notes())
        return f"<p>{escape(self.summary)}</p>{tables}{notes}"

    def to_json(self) -> str:
        """All of it as JSON."""
        return self.model_dump_json(indent=2)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Picture:
        """What was kept and dropped by day, by score and by class, as a PNG.

        Args:
            path: of a file to write as well.

        Raises:
            MissingExtraError: matplotlib isn't installed.
        """
        from edgefleet.analysis.losses_plot import draw

        kind = self.kinds[0].kind if self.kinds else ""
        halves = {"day": self.days, "score": self.bands, "class": self.classes}
        return draw(self.summary, kind, halves, path=path)

    def _tables(self) -> Iterator[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
        if self.kinds:
            yield _COLUMNS, [_cells(row) for row in self.kinds]
        for name, rows in (("class", self.classes), ("score", self.bands), ("day", self.days)):
            if any(row.dropped for row in rows):
                yield (name, *_COLUMNS), [(row.name, *_cells(row)) for row in rows]
        worst = sorted(self.by_device, key=lambda row: -row.dropped)
        if worst and worst[0].dropped:
            yield ("device", *_COLUMNS), [(r.name, *_cells(r)) for r in worst if r.dropped]

    def _notes(self) -> Iterator[str]:
        for damage in self.damages:
            yield f"{damage.device}, {damage.time:%Y-%m-%d %H:%M}: {damage.message}"
        for device, count in self.unaccounted.items():
            yield f"{device}: {count:,} more events dropped than accounted for"
        if self.unusable:
            first = self.unusable[0]
            yield f"{self.unusable_count} accounts can't be used, the first of {first.device}"
        if self.unreadable:
            yield f"{len(self.unreadable)} segments couldn't be read: {', '.join(self.unreadable)}"


def _plural(kind: str, count: int) -> str:
    if count == 1 or kind.endswith(("th", "s")):
        return kind
    return kind + ("es" if kind.endswith("ch") else "s")


def _cells(row: Kept) -> tuple[str, ...]:
    share = row.dropped / row.seen if row.seen else 0.0
    return (row.kind, f"{row.seen:,}", f"{row.kept:,}", f"{row.dropped:,}", f"{share:.1%}")


def _few(rows: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
    listed = list(rows)
    rest = len(listed) - _MOST_LINES
    if rest <= 0:
        return listed
    return [*listed[:_MOST_LINES], (f"{rest} more", *("" for _ in listed[0][1:]))]
