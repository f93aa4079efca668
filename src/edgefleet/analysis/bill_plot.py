"""A bill as a picture: what each meter costs a month."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.pictures import BLUE, GREY, INK, new_figure, picture_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Protocol

    from edgefleet.interfaces.pictures import Picture

    class Row(Protocol):
        """What is drawn of a `bill.Line`."""

        @property
        def provider(self) -> str: ...
        @property
        def meter(self) -> str: ...
        @property
        def cost(self) -> float: ...
        @property
        def currency(self) -> str: ...
        @property
        def assumed(self) -> bool: ...


def draw(title: str, rows: Sequence[Row], *, path: str | os.PathLike[str] | None = None) -> Picture:
    """A bar a meter, the dearest on top; grey ones have an assumed price.

    Args:
        title: above it.
        rows: the dearest first.
        path: of a PNG file to write as well.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    figure = new_figure(title, 9.0, 1.6 + 0.35 * max(1, len(rows)))
    axis = figure.subplots()
    if not rows:
        axis.set_axis_off()
        return picture_of(figure, path)
    places = range(len(rows))
    colours = [GREY if row.assumed else BLUE for row in rows]
    axis.barh(places, [row.cost for row in rows], color=colours)
    axis.set_yticks(places, [f"{row.provider}: {row.meter}" for row in rows], fontsize=8)
    axis.invert_yaxis()
    currencies = ", ".join(sorted({row.currency for row in rows}))
    axis.set_xlabel(f"{currencies} a month; grey: assumed price", color=INK)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    return picture_of(figure, path)
