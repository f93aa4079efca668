"""Samples and labels as devices and people leave them: files of a local fleet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.analysis.labelling import Opinion, merge
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.event import Sample, new_event
from edgefleet.protocol.segment import SegmentName, write_segment
from tests.analysis.field import Field, npy
from tests.loop.world import data

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from tests.loop.world import World


def home(world: World) -> Path:
    """Where the local provider keeps the fleet of that world."""
    return next((world.folder / "fleet").rglob("state")).parent


def capture(
    world: World, count: int, *, at: datetime, device: str = "cam-06", seed: int = 1
) -> list[tuple[str, int]]:
    """So many samples of a broken feature; the digest and the class of each."""
    field = Field(home(world))
    x, labels = data(count, seed=seed, broken=True)
    known, events = [], []
    for index in range(count):
        content = npy(x[index : index + 1])
        field.file(device, content)
        known.append((digest_of(content), int(labels[index])))
        sample = Sample(
            model="signs", model_version="1", reason="all", inputs={"x": digest_of(content)}
        )
        events.append(new_event(sample, time=at))
    segment(world, events, at=at, device=device, name=f"{seed:04d}")
    return known


def segment(
    world: World, events: list[Event], *, at: datetime, device: str = "cam-06", name: str
) -> None:
    """A segment as a device sends it."""
    where = SegmentName(day=at.date(), device=device, model="signs", id=name)
    path = home(world) / where.path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        write_segment(events, stream)


def label(world: World, known: list[tuple[str, int]], *, at: datetime) -> Path:
    """Labels of samples, in the folder that the loop's file names."""
    folder = world.folder / "labelled"
    merge(folder, "signs", (Opinion(sample=one, at=at, by="ana", label=str(n)) for one, n in known))
    return folder
