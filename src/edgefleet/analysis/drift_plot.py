"""A drift report as a picture: PSI of each feature over time, and how the worst are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.interfaces.pictures import BLUE, GREY, INK, RED, new_figure, picture_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from edgefleet.analysis.drift_rows import Distribution, FeatureDrift, Stretch
    from edgefleet.interfaces.pictures import Picture

MOST_FEATURES = 24  # rows of the map, the worst ones
MOST_SHOWN = 3  # distributions
_FULL_PSI = 0.5  # of the darkest colour: twice what counts as moved by custom


def draw(
    title: str,
    version: str | None,
    features: Sequence[FeatureDrift],
    timeline: Sequence[Stretch],
    distributions: Sequence[Distribution],
    *,
    path: str | os.PathLike[str] | None = None,
) -> Picture:
    """A report as a picture; see `DriftReport.plot`.

    Args:
        title: above it.
        version: of the model that is drawn; None where nothing was seen.
        features: all rows of the report, the worst first.
        timeline: likewise.
        distributions: likewise.
        path: of a PNG file to write as well.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    rows = [row for row in features if (row.level, row.version) == ("fleet", version)]
    worst = [row.feature for row in rows[:MOST_FEATURES]]
    figure = new_figure(title, 11.0, 3.6 + 0.24 * len(worst))
    by_feature = {one.feature: one for one in distributions if one.version == version}
    shown = [by_feature[name] for name in worst if name in by_feature][:MOST_SHOWN]
    grid = figure.add_gridspec(2, max(1, len(shown)), height_ratios=[1.0 + 0.12 * len(worst), 1.0])
    parts = [part for part in timeline if part.version == version]
    _map(figure, figure.add_subplot(grid[0, :]), worst, parts)
    for column, one in enumerate(shown):
        _bars(figure.add_subplot(grid[1, column]), one, legend=column == 0)
    return picture_of(figure, path)


def _map(figure: Any, axis: Any, features: Sequence[str], parts: Sequence[Stretch]) -> None:  # noqa: ANN401 - matplotlib has no types
    starts = sorted({part.start for part in parts})
    if not starts:
        axis.text(0.5, 0.5, "no windows of sketches", ha="center", va="center", color=INK)
        axis.set_axis_off()
        return
    psi = {(part.feature, part.start): part.psi for part in parts}
    rows = [[psi.get((feature, start)) for start in starts] for feature in features]
    cells = [[float("nan") if value is None else value for value in row] for row in rows]
    image = axis.imshow(cells, aspect="auto", cmap="OrRd", vmin=0.0, vmax=_FULL_PSI)
    axis.set_facecolor("#eeeeee")  # too little was seen
    axis.set_yticks(range(len(features)), [name[:40] for name in features], fontsize=8, color=INK)
    step = -(-len(starts) // 8)
    ticks = range(0, len(starts), step)
    labels = [f"{starts[tick]:%m-%d %H:%M}" for tick in ticks]
    axis.set_xticks(ticks, labels, fontsize=8, color=INK)
    axis.set_xlabel("PSI of the fleet from that time on, UTC; grey: too little seen", fontsize=9)
    figure.colorbar(image, ax=axis, extend="max", fraction=0.03, pad=0.01)


def _bars(axis: Any, one: Distribution, *, legend: bool) -> None:  # noqa: ANN401 - matplotlib has no types
    if one.edges:
        for shares, colour, name in ((one.reference, GREY, "reference"), (one.seen, RED, "seen")):
            axis.stairs(
                shares, one.edges, fill=colour == GREY, color=colour, label=name,
                alpha=0.6 if colour == GREY else 1.0, linewidth=1.4,
            )  # fmt: skip
    else:
        places = range(len(one.classes))
        axis.bar(places, one.reference, width=0.8, color=GREY, alpha=0.6, label="reference")
        axis.bar(places, one.seen, width=0.4, color=BLUE, label="seen")
        axis.set_xticks(places, one.classes, fontsize=8)
    axis.set_title(one.feature[:40], fontsize=9, color=INK, loc="left")
    axis.tick_params(labelsize=8)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if legend:
        axis.set_ylabel("share", fontsize=9, color=INK)
        axis.legend(frameon=False, fontsize=8)
