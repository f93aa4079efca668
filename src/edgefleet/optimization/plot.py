"""The report as a picture: accuracy over latency and over size, with the Pareto front.

What was not measured is not drawn: a candidate without a latency is missing from the left half, and
its name stands below it. The same report and matplotlib give the same bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgefleet.interfaces.amounts import size_text
from edgefleet.interfaces.pictures import BLUE, DPI, GREY, INK, RED, new_figure, picture_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from edgefleet.interfaces.pictures import Picture

    Figures = Callable[["Row"], float | None]

AREAS = (45.0, 600.0)  # square points of the smallest and the largest file
MARKS = {"shipped": ("o", BLUE, BLUE), "passed": ("o", "white", BLUE), "rejected": ("X", RED, RED)}
"""Outcome -> matplotlib's marker, the colour inside and of the rim."""
DISTANCES = (0.5, 1.5, 2.7, 4.0, 6.0, 8.5)  # of a label from its mark, in heights of a line
NEAR = 1.0  # no line leads from a label to its mark where it is as near as this
DIRECTIONS = ((1, 0), (1, 1), (1, -1), (-1, 0), (-1, 1), (-1, -1), (0, 1), (0, -1))


class Row(Protocol):
    """What is drawn of a `report.CandidateRow`."""

    @property
    def variant(self) -> str: ...
    @property
    def outcome(self) -> str: ...
    @property
    def size_bytes(self) -> int | None: ...
    @property
    def accuracy(self) -> float | None: ...
    @property
    def p50_ms(self) -> float | None: ...


class Report(Protocol):
    """What is drawn of a `report.OptimizationReport`."""

    @property
    def model(self) -> str: ...
    @property
    def machine(self) -> str | None: ...
    @property
    def max_accuracy_drop(self) -> float: ...
    @property
    def rows(self) -> Sequence[Row]: ...


class Point(NamedTuple):
    """A candidate in one half of the picture."""

    x: float
    y: float
    row: Row


def draw(report: Report, path: str | os.PathLike[str] | None = None) -> Picture:
    """The report as a picture; see `OptimizationReport.plot`.

    Args:
        report: of one `optimize`.
        path: of a PNG file to write as well.

    Raises:
        MissingExtraError: matplotlib isn't installed.
    """
    halves: list[tuple[str, Figures]] = [("size, MB", _megabytes)]
    if any(row.p50_ms is not None for row in report.rows):
        halves.insert(0, (f"p50 of one call on this machine ({report.machine}), ms", _milliseconds))
    title = f"{report.model}: at most {report.max_accuracy_drop:.4g} accuracy lost"
    figure = new_figure(title, 6.5 * len(halves), 5.2)
    axes = figure.subplots(1, len(halves), squeeze=False)[0]
    drawn = [
        (axis, _half(axis, report, label, value))
        for axis, (label, value) in zip(axes, halves, strict=True)
    ]
    _legend(axes[-1], report)
    figure.canvas.draw()  # places are known from here on
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()
    for axis, points in drawn:
        _label(axis, points, renderer)
    return picture_of(figure, path)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in both, from left to right: smaller ``x`` and larger ``y`` win."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y, p.row.variant)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def _megabytes(row: Row) -> float | None:
    return None if row.size_bytes is None else row.size_bytes / 1e6


def _milliseconds(row: Row) -> float | None:
    return row.p50_ms


def _half(axis: Any, report: Report, label: str, value: Figures) -> list[Point]:  # noqa: ANN401 - matplotlib has no types
    judged = any(row.accuracy is not None for row in report.rows)
    points, without = [], []
    for row in report.rows:
        x, y = value(row), row.accuracy if judged else 0.0
        if x is not None and y is not None:
            points.append(Point(x, y, row))
        elif row.outcome in MARKS:
            without.append(row.variant)
    areas = _areas(points)
    for point, area in zip(points, areas, strict=True):
        marker, inside, rim = MARKS.get(point.row.outcome, MARKS["rejected"])
        axis.scatter(
            [point.x],
            [point.y],
            s=area,
            marker=marker,
            facecolor=inside,
            edgecolor=rim,
            linewidth=1.4,
            alpha=0.75,
            zorder=3,
        )
    if judged:
        best = front([p for p in points if p.row.outcome != "rejected"])
        line = {"color": GREY, "linewidth": 1.2, "zorder": 1, "drawstyle": "steps-post"}
        axis.plot([p.x for p in best], [p.y for p in best], **line)
    axis.set_ylabel("accuracy" if judged else "accuracy: not measured", color=INK)
    if not judged:
        axis.set_yticks([])
    note = f"\nnot measured: {_few(without)}" if without else ""
    axis.set_xlabel(label + note, color=INK)
    axis.margins(0.22)
    axis.grid(visible=True, color="#eeeeee", zorder=0)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if points:
        axis.set_xlim(left=0)
    return points


def _few(names: Sequence[str], most: int = 4) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _legend(axis: Any, report: Report) -> None:  # noqa: ANN401 - matplotlib has no types
    for outcome, (marker, inside, rim) in MARKS.items():
        if any(row.outcome == outcome for row in report.rows):
            axis.scatter(
                [], [], s=70, marker=marker, facecolor=inside, edgecolor=rim, label=outcome
            )
    axis.plot([], [], color=GREY, linewidth=1.2, label="Pareto front")
    axis.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0, 1.1), ncols=4)


def _areas(points: Sequence[Point]) -> list[float]:
    """Square points of each mark, by the size of the file."""
    sizes = [point.row.size_bytes or 0 for point in points]
    largest = max(sizes, default=0) or 1
    return [AREAS[0] + (AREAS[1] - AREAS[0]) * size / largest for size in sizes]


def _label(axis: Any, points: Sequence[Point], renderer: Any) -> None:  # noqa: ANN401 - matplotlib has no types
    """Put each name where it hides least: near its mark, off other names and marks."""
    from matplotlib.patheffects import withStroke

    taken: list[Any] = []
    frame = axis.get_window_extent(renderer)
    marks = [tuple(axis.transData.transform((p.x, p.y))) for p in points]
    for point, area, mark in zip(points, _areas(points), marks, strict=True):
        text = axis.annotate(
            f"{point.row.variant}, {size_text(point.row.size_bytes)}",
            (point.x, point.y),
            xytext=(0, 0),
            textcoords="offset pixels",
            ha="center",
            va="center",
            fontsize=8.5,
            color=INK,
            zorder=4,
            path_effects=[withStroke(linewidth=2, foreground="white", alpha=0.8)],
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "zorder": 2},
        )
        box = text.get_window_extent(renderer)
        radius = math.sqrt(area / math.pi) * DPI / 72  # pixels
        others = [other for other in marks if other != mark]

        def cost(place: tuple[float, float, float], box: Any = box, others: Any = others) -> float:  # noqa: ANN401
            _, across, up = place
            moved = box.translated(across, up)
            return _hidden(moved, taken, others, frame) + place[0]

        distance, across, up = min(_places(box, radius), key=cost)
        text.set_position((across, up))
        text.arrow_patch.set_visible(distance > NEAR)
        taken.append(box.translated(across, up))


def _places(box: Any, radius: float) -> list[tuple[float, float, float]]:  # noqa: ANN401 - matplotlib has no types
    """Where a name may stand: its distance from the mark, and pixels across and up."""
    return [
        (
            distance,
            across * (box.width / 2 + radius + distance * box.height),
            up * (box.height / 2 + (0 if across else radius) + distance * box.height),
        )
        for distance in DISTANCES
        for across, up in DIRECTIONS
    ]


def _hidden(
    box: Any,  # noqa: ANN401 - matplotlib has no types
    taken: Sequence[Any],
    marks: Sequence[tuple[float, float]],
    frame: Any,  # noqa: ANN401 - matplotlib has no types
) -> float:
    """How much a name at that place hides, or is cut off."""
    near = box.padded(box.height * 0.6)
    names = sum(bool(box.padded(2).overlaps(other)) for other in taken)
    covered = sum(bool(near.contains(*mark)) for mark in marks)
    inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    return 100.0 * names + 20.0 * covered + (0.0 if inside else 200.0)
