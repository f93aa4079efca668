"""Segments on the disk: events gather in plain lines, then close into compressed files.

Rules kept here:

- An open segment is newline-delimited JSON below ``open/``. A process that is killed loses nothing
  that was appended; the line that a power cut tore is discarded and counted.
- A closed segment appears below ``closed/`` by a rename, then its open file goes. Dying in between
  only repeats the work, with the same name and content.
- Everything together stays under a cap: the oldest closed segments go first, and are counted.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from datetime import date
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import DocumentError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import MAX_BYTES as MAX_EVENT_BYTES
from edgefleet.protocol.event import read_event
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.segment import NO_MODEL, SUFFIX, SegmentName, write_segment
from edgefleet_runtime.faults import point
from edgefleet_runtime.store.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.release import TelemetryPolicy

_log = logging.getLogger(__name__)

SYNC_S = 1.0  # seconds between two flushes of open segments: what a power cut may cost
OPEN_SUFFIX = ".ndjson"


class _Open:
    """A segment that still grows. Its file is opened for each batch: a device has few handles."""

    def __init__(self, path: Path, now: float) -> None:
        self.path = path
        self.opened_at = now
        self.size = 0
        self.synced = True

    def append(self, lines: bytes) -> None:
        with translate_full(self.path), self.path.open("ab", buffering=0) as stream:
            self.synced = False
            try:
                written = 0
                while written < len(lines):
                    written += stream.write(memoryview(lines)[written:]) or 0
            except OSError:
                stream.truncate(self.size)  # no torn line before the next one
                raise
        self.size += len(lines)

    def sync(self) -> None:
        if not self.synced:
            with self.path.open("rb") as stream:
                os.fsync(stream.fileno())
            self.synced = True


class Closed(msgspec.Struct, frozen=True, order=True):
    """A segment ready to be uploaded. Ordered by age."""

    id: str
    name: str
    path: Path
    bytes: int

    @property
    def events(self) -> int:
        """How many events it holds; the last part of its id."""
        return int(self.id.rpartition("-")[2])


class SegmentFiles:
    """Segments below a folder.

    Args:
        root: the folder; made when missing.
        device: the device's name.
        max_bytes: cap of all segments together.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        root: Path,
        *,
        device: str,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes = max_bytes
        self._device = device
        self._clock = clock
        self._open_root, self._closed_root = root / "open", root / "closed"
        self._open: dict[tuple[date, str], _Open] = {}
        self._synced_at = clock()
        for folder in (self._open_root, self._closed_root):
            folder.mkdir(parents=True, exist_ok=True)

    def recover(self) -> int:
        """Close what an earlier process left open; returns how many lines were torn or damaged."""
        for partial in self._closed_root.rglob(".*.partial"):
            partial.unlink()
        damaged = 0
        for path in sorted(self._open_root.rglob(f"*{OPEN_SUFFIX}")):
            damaged += self._compress(path)
        return damaged

    def append(self, events: Iterable[Event]) -> int:
        """Add events to the segments of their day and model; returns how many were too large.

        Raises:
            StorageFullError: no room on the disk; some of the events may be in.
            OSError: the disk failed otherwise; likewise.
        """
        too_large = 0
        lines: dict[tuple[date, str], list[bytes]] = {}
        for event in events:
            key = (event.time.date(), event.subject or NO_MODEL)
            line = encode(event)
            if len(line) > MAX_EVENT_BYTES:
                too_large += 1
            else:
                lines.setdefault(key, []).append(line + b"\n")
        for key, encoded in lines.items():
            if key not in self._open:
                self._open[key] = self._new(*key)
            self._open[key].append(b"".join(encoded))
        point("spool.appended")
        return too_large

    def sync_due(self) -> None:
        """Flush open segments to the disk, once in `SYNC_S`."""
        if self._clock() - self._synced_at >= SYNC_S:
            for segment in self._open.values():
                segment.sync()
            self._synced_at = self._clock()

    def close_due(self, policy: TelemetryPolicy) -> int:
        """Close segments that are large or old enough; returns how many events were damaged."""
        # A quarter of the cap: or else the cap would be reached by what can't be uploaded yet.
        limit = min(policy.segment_max_bytes, self.max_bytes // 4)
        oldest = self._clock() - policy.segment_max_age_s
        crowded = sum(s.size for s in self._open.values()) * 2 > self.max_bytes
        due = [
            key
            for key, segment in self._open.items()
            if crowded or segment.size >= limit or segment.opened_at <= oldest
        ]
        return sum(self._close(key) for key in due)

    def close_all(self) -> int:
        """Close all segments; returns how many events were damaged."""
        return sum(self._close(key) for key in tuple(self._open))

    def closed(self) -> list[Closed]:
        """Segments ready to be uploaded, the oldest first."""
        return sorted(
            Closed(
                id=path.name.removesuffix(SUFFIX),
                name=path.relative_to(self._closed_root).as_posix(),
                path=path,
                bytes=path.stat().st_size,
            )
            for path in self._closed_root.rglob(f"*{SUFFIX}")
            if not path.name.startswith(".")
        )

    def remove(self, segment: Closed) -> None:
        """Forget a segment, uploaded or given up."""
        segment.path.unlink(missing_ok=True)
        for folder in (segment.path.parent, segment.path.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                break  # not empty

    def used_bytes(self) -> int:
        """What all segments take."""
        return sum(s.bytes for s in self.closed()) + sum(s.size for s in self._open.values())

    def trim(self) -> int:
        """Give the oldest closed segments up until the rest is under the cap.

        Returns:
            How many events were lost.
        """
        lost, excess = 0, self.used_bytes() - self.max_bytes
        for segment in self.closed():
            if excess <= 0:
                break
            self.remove(segment)
            lost += segment.events
            excess -= segment.bytes
        return lost

    def _new(self, day: date, model: str) -> _Open:
        folder = self._open_root / f"date={day.isoformat()}" / f"model={model}"
        identity = f"{time.time_ns():016x}-{uuid.uuid4().hex[:8]}"
        with translate_full(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return _Open(folder / f"{identity}{OPEN_SUFFIX}", self._clock())

    def _close(self, key: tuple[date, str]) -> int:
        damaged = self._compress(self._open[key].path)
        del self._open[key]  # not before: where there was no room to close it, it stays open
        return damaged

    def _compress(self, path: Path) -> int:
        """Turn an open file into a closed segment; returns how many lines could not be read."""
        day, model = (part.partition("=")[2] for part in path.parts[-3:-1])
        counts = _Counts()
        partial = self._closed_root / f".{path.stem}.partial"
        try:
            with translate_full(partial), path.open("rb") as lines, partial.open("wb") as to:
                counts.good = write_segment(_events(lines, counts), to)
                to.flush()
                os.fsync(to.fileno())
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        if counts.good:
            name = SegmentName(
                day=date.fromisoformat(day),
                device=self._device,
                model=model,
                id=f"{path.stem}-{counts.good}",
            )
            target = self._closed_root / name.below_device
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(target)
            sync_folder(target.parent)
        else:
            partial.unlink()
        point("spool.closed")
        path.unlink()
        if counts.bad:
            _log.warning("%s: %d damaged lines discarded", path.name, counts.bad)
        return counts.bad


class _Counts:
    good = 0
    bad = 0


def _events(lines: BinaryIO, counts: _Counts) -> Iterator[Event]:
    while line := lines.readline(MAX_EVENT_BYTES + 1):
        try:
            event = read_event(line) if line.endswith(b"\n") else None
        except DocumentError:
            event = None
        if event is None:  # torn by a power cut, or damaged on the disk
            counts.bad += 1
        else:
            yield event
