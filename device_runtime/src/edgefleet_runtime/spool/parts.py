"""Where events wait: a table for each shelf and level, so that a whole level goes at one stroke.

Rules kept here:

- Rows are appended; ids come from one sequence of the spool's own, whatever the clock says.
- While there is room for everything, a shelf's rows go into one table as they come (`UNSORTED`),
  which says of each what level it is of. `edgefleet_runtime.spool.sorting` moves them.
- Dropping a level is ``DROP TABLE``: SQLite gives its pages back unread or unwritten, apart from
  lists of page numbers. On flash that is what keeps a full spool from wearing the disk out.
- Every row carries a checksum of what it says; what doesn't match is damage, never data.
- How much waits is written down now and then (`save`); what came since is counted at the start.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from edgefleet.errors import IntegrityError
from edgefleet_runtime.spool.budget import ROW_BYTES
from edgefleet_runtime.spool.worth import BY_AGE, LEVELS, UNSORTED, Shelf

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgefleet_runtime.spool.rating import Entry
    from edgefleet_runtime.spool.tallies import Key

WORD = 0xFFFFFFFF  # what a checksum may begin with
_CHUNK = 4096  # rows that are counted at once


Stored = tuple[int, int, int, bytes]
"""A row as the table of a level holds it: `Row.stored`."""
Unsorted = tuple[int, int, int, int, bytes]
"""The same with its level before the event."""


class Row(NamedTuple):
    """One event as it waits: its number, its tally's id, its JSON."""

    id: int
    tally: int
    event: bytes

    @property
    def stored(self) -> Stored:
        """The row with its checksum: CRC-32 of the event and of which tally counts it."""
        return self.id, self.tally, crc32(self.event, self.tally & WORD), self.event


def checked(identity: int, tally: int, check: int, event: bytes) -> Row:
    """A row as it was read.

    Raises:
        IntegrityError: it isn't what was written.
    """
    if type(event) is bytes and type(tally) is int and type(check) is int:
        row = Row(identity, tally, event)
        if row.stored[2] == check:
            return row
    msg = f"event {identity} of the spool is damaged"
    raise IntegrityError(msg, cure="what can be read is saved by itself")


def level_of(level: object) -> int:
    """A level as it was read.

    Raises:
        IntegrityError: there is no such level.
    """
    if type(level) is int and 0 <= level < LEVELS:
        return level
    msg = f"an event of the spool is of level {level!r}"
    raise IntegrityError(msg, cure="what can be read is saved by itself")


class Part:
    """A table of that name. ``events`` and ``size`` (bytes of events) are what waits in it."""

    __slots__ = ("events", "level", "shelf", "size", "table", "unsaved")

    def __init__(self, shelf: Shelf, level: int, events: int = 0, size: int = 0) -> None:
        self.shelf = shelf
        self.level = level
        self.events = events
        self.size = size
        self.unsaved = True
        self.table = table_of(shelf, level)

    @property
    def place(self) -> tuple[int, int]:
        """What orders parts: the lowest goes first."""
        return self.shelf, self.level

    def pages(self, page: int) -> int:
        """About how many pages it takes."""
        return 1 + (self.size + self.events * ROW_BYTES) * 5 // (page * 4)


def table_of(shelf: Shelf, level: int) -> str:
    """The name of a part's table."""
    return f"at_{shelf.label}_{level if level != UNSORTED else 'new'}"


def levels_of(shelf: Shelf) -> range:
    """The levels that a shelf may have, the least worth first."""
    return range(1) if shelf in BY_AGE else range(UNSORTED, LEVELS)


class Parts:
    """All tables of events.

    Attributes:
        next_id: of the next event.
        sorting: whether what comes is sorted at once.
    """

    def __init__(self) -> None:
        self._all: dict[tuple[int, int], Part] = {}
        self.next_id = 1
        self.sorting = True

    def __iter__(self) -> Iterator[Part]:
        """Those that hold something, the least worth first."""
        return iter(sorted((p for p in self._all.values() if p.events), key=lambda p: p.place))

    def of(self, shelf: Shelf) -> list[Part]:
        """A shelf's parts that hold something, the least worth first."""
        return [part for part in self if part.shelf is shelf]

    def events(self, shelves: Iterable[Shelf]) -> int:
        """How many events wait on these shelves."""
        wanted = set(shelves)
        return sum(part.events for part in self._all.values() if part.shelf in wanted)

    def size(self, shelves: Iterable[Shelf]) -> int:
        """Bytes of events that wait on these shelves."""
        wanted = set(shelves)
        return sum(part.size for part in self._all.values() if part.shelf in wanted)

    def lowest(self) -> Part | None:
        """The part that would go first. An account is never dropped: what it says is elsewhere."""
        return next((part for part in self if part.shelf is not Shelf.ACCOUNTS), None)

    def unsorted(self) -> Part | None:
        """The lowest part of rows that are still to be sorted."""
        found = [p for p in self._all.values() if p.level == UNSORTED and p.events]
        return min(found, key=lambda part: part.shelf, default=None)

    @property
    def growth(self) -> int:
        """Pages that sorting may take beside those it frees: two for each table that it makes."""
        shelves = [p.shelf for p in self._all.values() if p.level == UNSORTED and p.events]
        return sum(2 * (LEVELS + 1 - sum([s == shelf for s, _ in self._all])) for shelf in shelves)

    def has(self, shelf: int, level: int) -> bool:
        """Whether there is a table already."""
        return (shelf, level) in self._all

    def where(self, place: tuple[Shelf, int]) -> tuple[Shelf, int]:
        """The part where an event of that shelf and level would go now."""
        if self.sorting or place[0] in BY_AGE:
            return place
        return place[0], UNSORTED

    # ------------------------------------------------------------------------ within a transaction

    def load(self, sql: sqlite3.Connection) -> None:
        """Take over what the database says, and count what came since it was last written down."""
        there = {
            name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type='table'")
        }
        self._all.clear()
        found = sql.execute("SELECT value FROM meta WHERE key='next'").fetchone()
        # Never lower than it was: an id that somebody was told means one event, whatever was lost.
        self.next_id = max(self.next_id, found[0] if found else 1)
        saved = {
            (shelf, level): counts
            for shelf, level, *counts in sql.execute(
                "SELECT shelf, level, events, bytes, upto FROM part"
            )
        }
        for shelf in Shelf:
            for level in levels_of(shelf):
                if table_of(shelf, level) not in there:
                    continue
                events, size, upto = saved.get((shelf, level), (0, 0, 0))
                table = table_of(shelf, level)
                more, length, last = sql.execute(
                    f"SELECT count(*), total(length(event)), max(id) FROM {table} WHERE id > ?",  # noqa: S608
                    (upto,),
                ).fetchone()
                self._all[shelf, level] = Part(shelf, level, events + more, size + int(length))
                self.next_id = max(self.next_id, upto + 1, (last or 0) + 1)

    def save(self, sql: sqlite3.Connection) -> None:
        """Write down how much waits."""
        sql.executemany(
            "REPLACE INTO part VALUES (?, ?, ?, ?, ?)",
            [
                (part.shelf, part.level, part.events, part.size, self.next_id - 1)
                for part in self._all.values()
                if part.unsaved
            ],
        )
        sql.execute("REPLACE INTO meta VALUES ('next', ?)", (self.next_id,))

    def saved(self) -> None:
        """The transaction of `save` is done."""
        for part in self._all.values():
            part.unsaved = False

    def put(
        self, sql: sqlite3.Connection, entries: Iterable[Entry], tallies: Mapping[Key, int]
    ) -> None:
        """Append events, whose ids are the next ones, each where it goes now.

        Args:
            sql: of a transaction.
            entries: the events.
            tallies: the id of each one's tally.
        """
        stored: dict[tuple[Shelf, int], list[Stored]] = {}
        unsorted: dict[Shelf, list[Unsorted]] = {}
        identity, at_once = self.next_id, self.sorting
        for entry in entries:
            data, place, tally = entry.data, entry.place, tallies[entry.key]
            check = crc32(data, tally & WORD)
            if at_once or place[0] in BY_AGE:
                stored.setdefault(place, []).append((identity, tally, check, data))
            else:
                unsorted.setdefault(place[0], []).append((identity, tally, check, place[1], data))
            identity += 1
        for (shelf, level), rows in stored.items():
            self.add(sql, shelf, level, rows)
        for shelf, more in unsorted.items():
            self.add(sql, shelf, UNSORTED, more)
        self.next_id = identity

    def add(
        self,
        sql: sqlite3.Connection,
        shelf: Shelf,
        level: int,
        rows: Sequence[Stored] | Sequence[Unsorted],
    ) -> None:
        """Append rows, `Unsorted` ones where they are that; their ids are the next ones.

        Rows that came from another part may have lower ids; then `save` within the transaction.
        """
        part = self._all.get((shelf, level))
        if part is None:
            part = self._all[shelf, level] = Part(shelf, level)
            more = " level INTEGER NOT NULL," if level == UNSORTED else ""
            sql.execute(
                f"CREATE TABLE {part.table}(id INTEGER PRIMARY KEY, tally INTEGER NOT NULL,"
                f" crc INTEGER NOT NULL,{more} event BLOB NOT NULL)"
            )
        marks = "?, ?, ?, ?, ?" if level == UNSORTED else "?, ?, ?, ?"
        sql.executemany(f"INSERT INTO {part.table} VALUES ({marks})", rows)  # noqa: S608 - ours
        part.events += len(rows)
        part.size += sum([len(row[-1]) for row in rows])
        part.unsaved = True

    def rows(self, sql: sqlite3.Connection, part: Part, *, newest: bool = False) -> Iterator[Row]:
        """A part's rows, read one by one.

        Raises:
            IntegrityError: one is damaged.
        """
        order = "DESC" if newest else "ASC"
        for found in sql.execute(
            f"SELECT id, tally, crc, event FROM {part.table} ORDER BY id {order}"  # noqa: S608
        ):
            yield checked(*found)

    def drop(self, sql: sqlite3.Connection, part: Part) -> Counter[int]:
        """Remove a part as a whole; returns how many events of each tally it held."""
        counts = self._count(sql, part, None)
        sql.execute(f"DROP TABLE {part.table}")
        sql.execute("DELETE FROM part WHERE shelf=? AND level=?", part.place)
        del self._all[part.place]
        return counts

    def drop_oldest(self, sql: sqlite3.Connection, part: Part, events: int) -> Counter[int]:
        """Remove so many of a part's oldest events; returns how many of each tally."""
        found = sql.execute(
            f"SELECT id FROM {part.table} ORDER BY id LIMIT 1 OFFSET ?",  # noqa: S608 - ours
            (events - 1,),
        ).fetchone()
        if found is None:
            return self.drop(sql, part)
        counts = self._count(sql, part, found[0])
        self.take(sql, part, found[0])
        return counts

    def take(self, sql: sqlite3.Connection, part: Part, last: int) -> None:
        """Remove a part's events up to the one with this id."""
        events, size = sql.execute(
            f"SELECT count(*), total(length(event)) FROM {part.table} WHERE id <= ?",  # noqa: S608
            (last,),
        ).fetchone()
        whole = events == part.events  # one list of pages instead of every page
        sql.execute(f"DELETE FROM {part.table}" + ("" if whole else f" WHERE id <= {last}"))  # noqa: S608
        part.events -= events
        part.size -= int(size)
        part.unsaved = True

    def remove(self, sql: sqlite3.Connection, part: Part, ids: Iterable[int]) -> Counter[int]:
        """Remove single events; returns how many of each tally."""
        counts: Counter[int] = Counter()
        for identity in ids:
            found = sql.execute(
                f"DELETE FROM {part.table} WHERE id=? RETURNING tally, length(event)",  # noqa: S608
                (identity,),
            ).fetchall()
            for tally, size in found:
                counts[tally] += 1
                part.events -= 1
                part.size -= size
                part.unsaved = True
        return counts

    @staticmethod
    def _count(sql: sqlite3.Connection, part: Part, last: int | None) -> Counter[int]:
        """How many events of each tally there are, up to an id."""
        counts: Counter[int] = Counter()
        after = 0
        while True:
            found = sql.execute(
                f"SELECT max(id) FROM (SELECT id FROM {part.table} WHERE id > ?"  # noqa: S608
                f" ORDER BY id LIMIT {_CHUNK})",
                (after,),
            ).fetchone()[0]
            upto = found if last is None or found is None else min(found, last)
            if upto is None or upto <= after:
                return counts
            for tally, number in sql.execute(
                f"SELECT tally, count(*) FROM {part.table} WHERE id > ? AND id <= ?"  # noqa: S608
                " GROUP BY tally",
                (after, upto),
            ):
                counts[tally] += number
            after = upto
