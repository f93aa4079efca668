"""Losses as a picture: what was kept and dropped, by day, by score and by class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.pictures import BLUE, INK, RED, new_figure, picture_of

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from typing import Protocol

    from edgefleet.interfaces.pictures import Picture

    class Row(Protocol):
        """What is drawn of a `losses_report.Kept`."""

        @property
        def kind(self) -> str: ...
        @property
        def name(self) -> str: ...
        @property
        def kept(self) -> int: ...
        @property
        def dropped(self) -> int: ...


def draw(
    title: str,
    kind: str,
    parts: Mapping[str, Sequence[Row]],
    *,
    path: str | os.PathLike[str] | None = None,
) -> Picture:
    """A picture with one chart a part, of the events of one kind.

    Args:
        title: above it.
        kind: of the events that are drawn.
        parts: rows by what each is about.
        path: of a PNG file to write as well.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    shown = {
        name: found
        for name, rows in parts.items()
        if (found := [row for row in rows if row.kind == kind])
    }
    figure = new_figure(title, 5.5 * max(1, len(shown)), 4.2)
    axes = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    if not shown:
        axes[0].set_axis_off()
    for axis, (name, rows) in zip(axes, shown.items(), strict=False):
        places = range(len(rows))
        kept = [row.kept for row in rows]
        axis.bar(places, kept, color=BLUE, label="kept")
        axis.bar(places, [r.dropped for r in rows], bottom=kept, color=RED, label="dropped")
        step = -(-len(rows) // 12)
        ticks = range(0, len(rows), step)
        axis.set_xticks(ticks, [rows[tick].name for tick in ticks], rotation=45, fontsize=8)
        axis.set_xlabel(name, color=INK)
        axis.set_ylabel(kind, color=INK)
        axis.legend(frameon=False, fontsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    return picture_of(figure, path)
