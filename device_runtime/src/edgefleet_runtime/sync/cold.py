"""Files on their way: segments, and the files of the samples that they name."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.event import Sample
from edgefleet.protocol.segment import read_segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.sync.outgoing import Batch, Files, Outgoing, Segment

_log = logging.getLogger(__name__)


class Parcel(NamedTuple):
    """A file to be uploaded.

    Attributes:
        name: its path below the device's own prefix.
        path: the file.
        size: its length in bytes.
        forget: called by the store's thread once it was taken.
    """

    name: str
    path: Path
    size: int
    forget: Callable[[], None]


def segment_parcel(outgoing: Outgoing, batch: Batch, segment: Segment) -> Parcel:
    """A segment of a batch."""
    forget = partial(outgoing.sent, batch, segment.name)
    return Parcel(segment.name, segment.path, segment.size, forget)


def sample_parcel(samples: Files, path: Path) -> Parcel:
    """A file of a sample; room may have been made of it by the time it was taken."""

    def forget() -> None:
        if path.exists():
            samples.remove(path)

    return Parcel(samples.name_of(path), path, path.stat().st_size, forget)


def fitting(parcels: Iterable[Parcel], room: int) -> list[Parcel]:
    """The first ones that together have so many bytes, and one at least."""
    found: list[Parcel] = []
    for parcel in parcels:
        room -= parcel.size
        if found and room < 0:
            break
        found.append(parcel)
    return found


def named_by(segments: Iterable[Parcel], samples: Files) -> list[Parcel]:
    """Those files of samples that the events of these segments name and that wait, each once."""
    named = dict.fromkeys(
        digest
        for segment in segments
        for event in _events(segment.path)
        if event.kind == "sample"
        for digest in _digests(event)
    )
    waiting = (samples.find(digest) for digest in named)
    return [sample_parcel(samples, path) for path in waiting if path is not None]


def _events(path: Path) -> Iterator[Event]:
    try:
        with path.open("rb") as stream:
            yield from read_segment(stream)
    except EdgeFleetError as error:  # it goes as it is: the receiving side tells of it, too
        _log.warning("%s: %s", path.name, error.message)


def _digests(event: Event) -> Iterator[str]:
    try:
        data = event.payload()
    except EdgeFleetError:
        return
    if isinstance(data, Sample):
        yield from data.inputs.values()
        yield from data.outputs.values()
