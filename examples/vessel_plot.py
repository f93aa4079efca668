"""The voyage in four pictures: the disk, what waits on it, what had to go, and drift."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from vessel_cargo import FEATURES, MINUTES
from vessel_ship import DRIFT
from vessel_voyage import MB

if TYPE_CHECKING:
    from pathlib import Path

    from vessel_voyage import Voyage

# Told apart by every kind of eye: Paul Tol's "bright" scheme, https://personal.sron.nl/~pault/
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
KEPT, GONE, LIMIT = COLOURS[0], COLOURS[1], "#222222"


def draw(voyage: Voyage, path: Path) -> None:
    """Write the pictures into one file."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    (disk, shelves), (bands, drift) = figure.subplots(2, 2)
    _disk(disk, voyage)
    _shelves(shelves, voyage)
    _bands(bands, voyage)
    _drift(drift, voyage)
    figure.savefig(path, dpi=110)


def _disk(axis: Any, voyage: Voyage) -> None:  # noqa: ANN401 - matplotlib has no types
    hours = voyage.hours
    axis.plot([h.day for h in hours], [h.folder_bytes / MB for h in hours], color=KEPT)
    axis.axhline(voyage.ship.cap_bytes / MB, color=LIMIT, linestyle="--", label="cap")
    axis.axvline(voyage.cargo.days, color=COLOURS[6], label="port")
    axis.set(title="The spool's folder", xlabel="day", ylabel="MiB", ylim=(0, None))
    axis.legend()


def _shelves(axis: Any, voyage: Voyage) -> None:  # noqa: ANN401 - matplotlib has no types
    hours = voyage.sea
    names = [name for name in hours[-1].waiting if any(h.waiting[name] for h in hours)]
    days = [h.day for h in hours]
    for name, colour in zip(names, COLOURS, strict=False):
        line = {"color": colour, "label": name}
        axis.plot(days, [h.waiting[name] for h in hours], **line)
        axis.plot(days, [h.dropped[name] for h in hours], linestyle=":", color=colour)
    axis.set(title="Events kept (dotted: dropped so far)", xlabel="day", yscale="symlog")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _bands(axis: Any, voyage: Voyage) -> None:  # noqa: ANN401 - matplotlib has no types
    seen, kept = Counter[int](), Counter[int]()
    for tallied, count in voyage.ashore.seen().items():
        seen[tallied.band] += count
    for tallied, count in voyage.ashore.kept.items():
        kept[tallied.band] += count
    bands = [band for band in range(10) if seen[band]]
    axis.bar(bands, [seen[band] for band in bands], color=GONE, label="all, by the accounts")
    axis.bar(bands, [kept[band] for band in bands], color=KEPT, label="kept")
    for band in bands:
        axis.annotate(f"{kept[band] / seen[band]:.0%}", (band, seen[band]), ha="center")
    axis.set_xticks(bands, [f"0.{band}" for band in bands])
    axis.set(title="Predictions by score", xlabel="score from", yscale="log")
    axis.legend()


def _drift(axis: Any, voyage: Voyage) -> None:  # noqa: ANN401 - matplotlib has no types
    for feature, colour in zip(FEATURES, COLOURS, strict=False):
        held = [one for one in voyage.held if one.feature == feature]
        days = [one.day for one in held]
        axis.plot(days, [one.exact.psi for one in held], color=colour, label=feature)
        axis.plot(days, [one.found.psi for one in held], "o", color=colour, markersize=3)
    for limit, name in ((DRIFT.limits.psi_watch, "watch"), (DRIFT.limits.psi_moved, "moved")):
        axis.axhline(limit, color=LIMIT, linestyle="--", linewidth=0.8)
        axis.annotate(name, (0, limit))
    faults = [fault.start / MINUTES for fault in voyage.ashore.faults()]
    axis.plot(faults, [0] * len(faults), "|", color=COLOURS[5], label="alarms")
    axis.set(title="Drift: all data (line), kept sketches (dots)", xlabel="day", ylabel="PSI")
    axis.legend()
