"""What things take on the disk, estimated from above: pages of a change, bytes of the folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_runtime.spool.budget import ROW_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from edgefleet_runtime.spool.budget import Budget
    from edgefleet_runtime.spool.parts import Part, Parts
    from edgefleet_runtime.spool.rating import Entry

QUARANTINE = "quarantine"  # folder of files that were set aside
MOST_SLICE = 1 << 20  # bytes of events in one transaction
FIXED = 10  # pages: the file's first, lists of free ones, counts of shelves, the schema
_A_TALLY = 64  # bytes of a row
TABLE = 4  # pages that a new table touches


def frames_of(entries: Collection[Entry], page: int, parts: Parts) -> int:
    """Pages that storing these events may write."""
    sizes = [len(entry.data) for entry in entries]
    small = page // 2 - ROW_BYTES  # rows above take pages of their own
    total = FIXED + (sum(sizes) + ROW_BYTES * len(sizes)) * 6 // (page * 5)
    if max(sizes, default=0) >= small:
        total += sum([row_bytes(size, page) // page for size in sizes if size >= small])
    for place in {parts.where(place) for place in {entry.place for entry in entries}}:
        total += 3 if parts.has(*place) else 3 + TABLE
    return total + len({entry.key for entry in entries})


def slices(
    numbers: Sequence[int], entries: Sequence[Entry], budget: Budget, parts: Parts
) -> Iterator[tuple[dict[int, Entry], int | None]]:
    """Cut a list of entries, given by number, into what one transaction may hold.

    Returns:
        the entries of each, and what `frames_of` says of them where that is known.
    """
    if not numbers:
        return
    page = budget.page
    chosen = {number: entries[number] for number in numbers}
    if sum([len(entry.data) for entry in chosen.values()]) <= MOST_SLICE:
        frames = frames_of(chosen.values(), page, parts)
        if frames <= budget.change_frames:
            yield chosen, frames
            return
    some: dict[int, Entry] = {}
    size = left = 0.0
    places: set[tuple[int, int]] = set()
    keys: set[object] = set()
    for number in numbers:
        entry = entries[number]
        data, key, place = entry.data, entry.key, parts.where(entry.place)
        cost = row_bytes(len(data), page) / page
        if place not in places:
            cost += 2 if parts.has(*place) else 2 + TABLE
        if key not in keys:
            cost += 1
        if some and (size + len(data) > MOST_SLICE or cost > left):
            yield some, None
            some = {}
        if not some:
            size, left = 0.0, float(budget.change_frames - FIXED)
            places, keys = set(), set()
            cost = row_bytes(len(data), page) / page + 3 + TABLE
        places.add(place)
        keys.add(key)
        some[number] = entry
        size += len(data)
        left -= cost
    if some:
        yield some, None


def drop_frames(part: Part, page: int, budget: Budget) -> int:
    """Pages that dropping a part may write: lists of free pages, where pages lie, counts."""
    pages = part.pages(page)
    lists = pages // (page // 4) + pages // (page // 5) + 2
    counts = min(part.events, budget.tallies_a_day, budget.tallies) * _A_TALLY // page + 2
    return FIXED + lists + counts


def reserve(budget: Budget) -> int:
    """Pages of a database that events leave to accounts, counts and names of segments."""
    return budget.account_bytes // budget.page + budget.pages(0) // 64 + FIXED


def oldest(part: Part, budget: Budget) -> int:
    """How many of a part's oldest events one transaction may remove: an eighth, or fewer."""
    a_page = max(1, part.events // part.pages(budget.page))
    most = max(1, budget.change_frames // 4 * a_page)
    return max(1, min(part.events // 8, most))


def folder_bytes(root: Path) -> int:
    """Length of all files below a folder; 0 where there is none."""
    return sum(map(path_bytes, root.iterdir())) if root.is_dir() else 0


def path_bytes(path: Path) -> int:
    """Length of a file, or of all files below a folder; of what is gone meanwhile, 0."""
    try:
        return folder_bytes(path) if path.is_dir() else path.stat().st_size
    except FileNotFoundError:
        return 0


def quarantine_bytes(root: Path) -> int:
    """Length of the files that were set aside."""
    return folder_bytes(root / QUARANTINE)


def row_bytes(data: int, page: int) -> int:
    """What a row takes, with what stays empty on its pages."""
    row = data + ROW_BYTES
    return row * 6 // 5 if row < page // 2 else (row // page + 2) * page
