"""What the demo found, drawn: digits as read, each device's figures, versions over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from edgefleet.interfaces.amounts import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure
    from numpy.typing import NDArray

    from edgefleet.cli.demo.facts import DeviceFacts, Facts
    from edgefleet.cli.demo.load import Answer
    from edgefleet.cli.demo.steps import Story

# Told apart by every kind of eye: Paul Tol's "bright" scheme, https://personal.sron.nl/~pault/
BLUE, ORANGE, RED, GREY, INK = "#4477aa", "#ee7733", "#cc3311", "#999999", "#222222"
COLUMNS, ROWS = 8, 4  # of digits
SHOWN_ERRORS = 4  # at most, of digits read wrongly
DPI = 130


def draw(story: Story, path: Path) -> None:
    """Write the picture as PNG."""
    facts = story.facts
    figure = Figure(
        figsize=(12.5, 9), facecolor="white", layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)
    )
    FigureCanvasAgg(figure)
    figure.suptitle(_title(facts), x=0.012, ha="left", fontsize=15, fontweight="bold", color=INK)
    halves = figure.add_gridspec(2, 1, height_ratios=[1, 1.25])
    upper = figure.add_subfigure(halves[0])
    quarters = upper.add_gridspec(1, 2, width_ratios=[1, 1.15])
    left, right = (upper.add_subfigure(quarter) for quarter in (quarters[0], quarters[1]))
    lower = figure.add_subfigure(halves[1])
    shown = facts.devices[0].device
    _digits(left, story.images, story.labels, story.predicted[shown], shown)
    colours = _colours(facts)
    _devices(right, facts.devices, colours)
    _timeline(lower, facts, story.answers, story.marks, colours)
    figure.savefig(path, dpi=DPI)


def _title(facts: Facts) -> str:
    names = " and ".join(version.reference for version in facts.versions)
    return f"{names} on {len(facts.devices)} devices, each a process of this machine"


def _colours(facts: Facts) -> dict[str, str]:
    versions = [version.reference.partition(":")[2] for version in facts.versions]
    return dict(zip(versions, (BLUE, ORANGE), strict=True))


def _digits(
    place: SubFigure,
    images: NDArray[Any],
    labels: NDArray[Any],
    predicted: NDArray[Any],
    device: str,
) -> None:
    wrong = np.flatnonzero(predicted != labels)[:SHOWN_ERRORS]
    right = np.flatnonzero(predicted == labels)[: COLUMNS * ROWS - len(wrong)]
    title = f"Digits that training never saw, as version 1 on {device} reads them"
    place.suptitle(title, x=0.03, ha="left", fontsize=11)
    axes = place.subplots(ROWS, COLUMNS).flat
    for axis, index in zip(axes, [*right, *wrong], strict=True):
        side = int(np.sqrt(images.shape[1]))
        axis.imshow(images[index].reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
        axis.set_xticks([])
        axis.set_yticks([])
        right_one = predicted[index] == labels[index]
        text = f"{predicted[index]}" if right_one else f"{predicted[index]}, is {labels[index]}"
        axis.set_xlabel(text, color=INK if right_one else RED, fontsize=10, labelpad=2)
        for spine in axis.spines.values():
            spine.set_color(GREY if right_one else RED)


def _devices(
    place: SubFigure,
    devices: Sequence[DeviceFacts],
    colours: Mapping[str, str],
) -> None:
    runs_on = [d.execution_provider.removesuffix("ExecutionProvider") for d in devices]
    names = [
        f"{d.device}\n{d.target}\n{d.variant} on {on}"
        for d, on in zip(devices, runs_on, strict=True)
    ]
    rows = range(len(devices))
    accuracy, latency, fetched = place.subplots(1, 3, sharey=True)
    for axis, title in (
        (accuracy, "accuracy, %"),
        (latency, "p50 to p99, ms, v. 1"),
        (fetched, "fetched, kB"),
    ):
        _plain(axis)
        axis.set_title(title, loc="left", fontsize=11, color=INK)
        axis.set_ylim(len(devices) - 0.5, -0.5)
        axis.tick_params(axis="y", length=0)
    accuracy.set_yticks(rows, names, fontsize=9.5)
    for row, d in zip(rows, devices, strict=True):
        for number, (version, colour) in enumerate(colours.items()):
            at = row - 0.14 + 0.28 * number
            share, count = d.accuracy[version], d.bytes_fetched[version]
            accuracy.barh(at, share * 100, height=0.25, color=colour)
            accuracy.text(3, at, f"{share:.1%}", va="center", color="white", fontsize=9)
            fetched.barh(at, count / 1000, height=0.25, color=colour)
            fetched.annotate(
                size_text(count),
                (count / 1000, at),
                (4, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                fontsize=9,
            )
        latency.plot([d.p50_ms, d.p99_ms], [row, row], color=BLUE, lw=2, solid_capstyle="round")
        latency.plot([d.p50_ms], [row], "o", color=BLUE, ms=8)
        latency.plot([d.p99_ms], [row], "o", mfc="white", mec=BLUE, ms=8)
        note = f"{d.p50_ms:.2f} to {d.p99_ms:.2f}"
        latency.annotate(note, (d.p50_ms, row), (0, 10), textcoords="offset points", fontsize=9)
    accuracy.set_xlim(0, 100)
    latency.set_xlim(0, max(d.p99_ms for d in devices) * 1.3)
    fetched.set_xlim(0, max(max(d.bytes_fetched.values()) for d in devices) / 1000 * 1.4)


def _timeline(
    place: SubFigure,
    facts: Facts,
    answers: Sequence[Answer],
    marks: Sequence[tuple[float, str]],
    colours: Mapping[str, str],
) -> None:
    failed = sum(answer.version is None for answer in answers)
    place.suptitle(
        f"{len(answers)} requests while the version changed and went back, {failed} dropped: "
        "each dot is one, coloured by the version that answered",
        x=0.012,
        ha="left",
        fontsize=11,
    )
    axes = place.subplots(len(facts.devices), 1, sharex=True, sharey=True)
    for axis, device in zip(axes, facts.devices, strict=True):
        _plain(axis)
        axis.set_yscale("log")
        axis.set_yticks([0.3, 1, 3, 10], ["0.3", "1", "3", "10"])
        axis.minorticks_off()
        axis.set_ylabel("ms", fontsize=9, color=INK)
        axis.set_title(device.device, loc="left", fontsize=10, color=INK, pad=3)
        for version, colour in (*colours.items(), (None, RED)):
            its = [a for a in answers if a.device == device.device and a.version == version]
            axis.scatter(
                [a.at_s for a in its],
                [a.latency_ms for a in its],
                s=7 if version else 40,
                marker="o" if version else "x",
                color=colour,
                alpha=0.75,
                linewidths=0 if version else 1.5,
                label=f"version {version}" if version else "dropped",
            )
        for at_s, _ in marks:
            axis.axvline(at_s, color=GREY, lw=1, ls=(0, (3, 3)), zorder=0)
    for number, (at_s, what) in enumerate(marks):
        axes[0].annotate(
            what,
            (at_s, 1.0),
            (-4 if number % 2 == 0 else 4, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if number % 2 == 0 else "left",
            fontsize=9.5,
            color=INK,
        )
    axes[0].legend(
        *_legend(axes[0], failed),
        loc="upper right",
        fontsize=9,
        ncols=3,
        frameon=False,
        markerscale=2,
    )
    axes[-1].set_xlabel("seconds", fontsize=10, color=INK)
    axes[-1].margins(x=0.01)


def _legend(axis: Axes, failed: int) -> tuple[list[Any], list[str]]:
    handles, labels = axis.get_legend_handles_labels()
    count = len(handles) if failed else len(handles) - 1
    return handles[:count], labels[:count]


def _plain(axis: Axes) -> None:
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(GREY)
    axis.tick_params(colors=INK, labelsize=9)
    axis.grid(visible=True, axis="x", color="#e6e6e6", lw=0.8)
    axis.set_axisbelow(True)
