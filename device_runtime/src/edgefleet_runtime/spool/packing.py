"""Makes segments of events that wait: a file a day and model, whole when it has its name."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.protocol.event import read_event
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.names import MAX_MODEL_CHARACTERS, MODEL_PATTERN
from edgefleet.protocol.segment import NO_MODEL, SUFFIX, SegmentName, write_segment
from edgefleet_runtime.faults import point
from edgefleet_runtime.store.durable import sync_folder
from edgefleet_runtime.sync.outgoing import Segment

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.spool.leisure import Leisure
    from edgefleet_runtime.spool.parts import Row

FOLDER = "outgoing"


class Packed(NamedTuple):
    """A segment's file, and how many events of each tally it holds."""

    segment: Segment
    tallies: Counter[int]


def pack(
    rows: Iterable[Row], folder: Path, *, device: str, prefix: str, leisure: Leisure
) -> list[Packed]:
    """Write segments of these events; what they hold outlives a power cut when this returns.

    Args:
        rows: in any order; segments hold them by id.
        folder: where the files go.
        device: the device's name.
        prefix: begins the segments' ids; never given before.
        leisure: for pauses in the work.

    Raises:
        StorageFullError: no room; what was begun is removed.
        OSError: the disk failed otherwise; likewise.
        DocumentError: a row is no event.
    """
    groups: dict[tuple[date, str], list[tuple[int, int, Event]]] = {}
    for row in leisure.through(rows):
        event = read_event(row.event)
        key = (event.time.date(), _model_of(event))
        groups.setdefault(key, []).append((row.id, row.tally, event))
    done: list[Packed] = []
    with translate_full(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for index, ((day, model), held) in enumerate(sorted(groups.items())):
                held.sort(key=lambda each: each[0])
                name = SegmentName(
                    day=day, device=device, model=model, id=f"{prefix}{index:x}-{len(held)}"
                )
                path = folder / f"{name.id}{SUFFIX}"
                size = _write(path, leisure.through([event for _, _, event in held]))
                segment = Segment(name.below_device, path, size, len(held))
                done.append(Packed(segment, Counter(tally for _, tally, _ in held)))
            sync_folder(folder)
        except BaseException:
            for packed in done:
                packed.segment.path.unlink(missing_ok=True)
            raise
    point("spool.packed")
    return done


def _write(path: Path, events: Iterable[Event]) -> int:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as to:
            write_segment(events, to)
            to.flush()
            os.fsync(to.fileno())
            size = to.tell()
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return size


def _model_of(event: Event) -> str:
    """The model in the segment's path; events about anything else lie together."""
    subject = event.subject or ""
    if re.match(MODEL_PATTERN, subject) and len(subject) <= MAX_MODEL_CHARACTERS:
        return subject
    return NO_MODEL
