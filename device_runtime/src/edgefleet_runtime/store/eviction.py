"""Which files of the store go when room is needed: a pure choice over values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Entry(msgspec.Struct, frozen=True):
    """A file of the store.

    Attributes:
        name: for the caller to find it again.
        bytes: what it takes on the disk.
        used_at: when it was last used, in any unit that rises.
        pinned: whether it is in use and must stay.
    """

    name: str
    bytes: int
    used_at: float
    pinned: bool


def choose(entries: Iterable[Entry], *, needed: int, max_bytes: int) -> tuple[Entry, ...] | None:
    """The entries to remove so that ``needed`` more bytes fit under ``max_bytes``.

    The least recently used go first and no more than needed; those pinned stay.

    Returns:
        The entries, none when there is room already; None when even all of them would not do, so
        that nothing is lost in vain.
    """
    everything = sorted(entries, key=lambda entry: (entry.used_at, entry.name))
    excess = sum(entry.bytes for entry in everything) + needed - max_bytes
    chosen: list[Entry] = []
    for entry in everything:
        if excess <= 0:
            break
        if not entry.pinned:
            chosen.append(entry)
            excess -= entry.bytes
    return tuple(chosen) if excess <= 0 else None
