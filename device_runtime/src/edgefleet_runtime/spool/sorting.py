"""Moves rows that were put down as they came to the tables of their levels, a step at a time.

Rules kept here:

- A step takes the oldest rows, as many as one transaction may move.
- A level's table takes pages that rows in one table don't. A step that finds no room for that keeps
  less, by worth: the shelf's door is raised until the step fits into what it frees.
- Every row is checked on the way; what doesn't match is damage.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgefleet_runtime.spool.budget import ROW_BYTES
from edgefleet_runtime.spool.parts import checked, level_of
from edgefleet_runtime.spool.room import FIXED, MOST_SLICE, TABLE, row_bytes
from edgefleet_runtime.spool.worth import LEVELS

if TYPE_CHECKING:
    import sqlite3

    from edgefleet_runtime.spool.budget import Budget
    from edgefleet_runtime.spool.parts import Part, Parts, Stored, Unsorted


def oldest(sql: sqlite3.Connection, parts: Parts, part: Part, budget: Budget) -> list[Unsorted]:
    """The rows of the next step.

    Raises:
        IntegrityError: one is damaged.
    """
    page = budget.page
    rows: list[Unsorted] = []
    levels: set[int] = set()
    size, frames = MOST_SLICE, float(budget.change_frames * 3 // 4 - FIXED)
    for identity, tally, check, level, event in sql.execute(
        f"SELECT id, tally, crc, level, event FROM {part.table} ORDER BY id"  # noqa: S608 - ours
    ):
        checked(identity, tally, check, event)
        size -= len(event)
        frames -= 2 * row_bytes(len(event), page) / page  # where it was, where it goes
        if level_of(level) not in levels:
            frames -= 2 if parts.has(part.shelf, level) else 2 + TABLE
        if rows and (size < 0 or frames < 0):
            break
        levels.add(level)
        rows.append((identity, tally, check, level, event))
    return rows


def door_for(rows: list[Unsorted], door: int, spare: int, page: int) -> int:
    """The least door, from the one there is up to `LEVELS`, for which a step finds room.

    Args:
        rows: of the step.
        door: what is of a lower level is not kept.
        spare: pages that may be filled beside those that the rows leave.
        page: bytes of one.
    """
    left = sum([_least(len(row[-1]), page) for row in rows]) // page - 1
    free = max(0, spare + left)
    while door < LEVELS:
        kept = [row for row in rows if row[3] >= door]
        filled = sum([_most(len(row[-1]), page) for row in kept]) // page
        if filled + 2 * len({row[3] for row in kept}) <= free:
            break
        door += 1
    return door


def move(
    sql: sqlite3.Connection, parts: Parts, part: Part, rows: list[Unsorted], door: int
) -> Counter[int]:
    """Take a step, within a transaction; returns how many of each tally are not kept."""
    parts.take(sql, part, rows[-1][0])
    dropped: Counter[int] = Counter()
    kept: dict[int, list[Stored]] = {}
    for identity, tally, check, level, event in rows:
        if level < door:
            dropped[tally] += 1
        else:
            kept.setdefault(level, []).append((identity, tally, check, event))
    for level, each in kept.items():
        parts.add(sql, part.shelf, level, each)
    return dropped


def _least(data: int, page: int) -> int:
    """What a row takes at the least: two that are longer than half a page share none."""
    row = data + ROW_BYTES
    return page if page // 2 < row < page else row


def _most(data: int, page: int) -> int:
    """What it takes at the most, with what stays empty and with the pages that point to it."""
    row = data + ROW_BYTES
    return page * 17 // 16 if page // 2 <= row < page - 64 else row_bytes(data, page)
