"""What leaves the spool, as those see it who send: hot events, and batches of segments.

Rules kept here:

- Hot events stay until `Outgoing.hot_sent` names them, segments until `Outgoing.sent` does. What
  was taken by the channel but not yet told when a process died goes again, under the same ids,
  names and bytes.
- There is one batch at a time. Its segments are whole files on the disk before anybody sees them.
- All of it is called from the spool's one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from edgefleet.protocol.event import Event


class Segment(NamedTuple):
    """A file to be uploaded.

    Attributes:
        name: its path below the device's own prefix.
        path: the file.
        size: its length in bytes.
        events: how many it holds.
    """

    name: str
    path: Path
    size: int
    events: int


class Batch(NamedTuple):
    """Segments that were made together, those that are still to be uploaded, by name."""

    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Length of all of them in bytes."""
        return sum(segment.size for segment in self.segments)


class Outgoing(Protocol):
    """What the store offers to those who send."""

    def hot(self, max_events: int, max_bytes: int) -> list[tuple[int, Event]]:
        """Alarms, the newest first, then health events, likewise; each with its number here.

        Args:
            max_events: at most so many.
            max_bytes: of encoded events; the first one comes however large it is.
        """

    def hot_sent(self, numbers: Collection[int]) -> None:
        """Forget hot events that the channel has taken."""

    def batch(self, max_bytes: int, *, lean: bool, everything: bool) -> Batch | None:
        """The batch that is to be sent now: the one under way, or else the next when it is due.

        What matters most is in the first one: sketches and accounts, samples' events, windows, then
        predictions and readings, each as the spool rates them.

        Args:
            max_bytes: of encoded events before compression, under the store's own limit.
            lean: leave the events of samples and sketches where they are.
            everything: whatever waits, whether it is due by the policy or not.
        """

    def sent(self, batch: Batch, name: str) -> None:
        """Forget a segment that the channel has taken."""


class Files(Protocol):
    """The files of samples."""

    used_bytes: int
    """What all of them take; 0 where there is none."""

    def waiting(self) -> list[Path]:
        """All files, the oldest first; takes the longer the more there are."""

    def find(self, digest: str) -> Path | None:
        """The file of a digest, if it waits."""

    def name_of(self, path: Path) -> str:
        """Where a file goes, below the device's own prefix."""

    def remove(self, path: Path) -> None:
        """Forget a file, which the channel has taken."""
