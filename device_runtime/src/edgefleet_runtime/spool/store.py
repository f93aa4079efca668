"""The spool's store: events by worth in a database that never outgrows its cap, and exact counts.

Rules kept here:

- The cap holds at every moment for everything in the folder: each file has its share
  (`edgefleet_runtime.spool.budget`), and room is made before something is written.
- What is worth less than what is kept is dropped at the door, without touching the disk.
- While less than half of the room is taken, what comes is put down unsorted, which writes fewest
  pages. Then each put sorts some of it, and nothing is dropped from a shelf before all of it is.
- What is counted is written with what it counts. Where the disk takes nothing, hot events stay in
  memory, up to `MAX_HELD`; everything else is counted as dropped once it takes something again.
- Damage is no error to those who call: what can be read is saved, and the loss counted.
- One thread calls it.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgefleet.errors import IntegrityError
from edgefleet.protocol.event import HOT
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.faults import point
from edgefleet_runtime.spool import room, sorting
from edgefleet_runtime.spool.budget import share_out
from edgefleet_runtime.spool.database import NAME, Database, check_counts, is_damage
from edgefleet_runtime.spool.doors import Doors
from edgefleet_runtime.spool.parts import Parts
from edgefleet_runtime.spool.rating import Rater
from edgefleet_runtime.spool.repair import DAMAGED, Repair
from edgefleet_runtime.spool.samples import FOLDER as SAMPLES
from edgefleet_runtime.spool.tallies import Tallies
from edgefleet_runtime.spool.worth import BY_AGE, LEVELS, UNSORTED, Shelf, shelf_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from edgefleet_runtime.spool.parts import Part
    from edgefleet_runtime.spool.rating import Entry
    from edgefleet_runtime.spool.samples import SampleFiles

_log = logging.getLogger(__name__)

HOT_SHELVES = frozenset({Shelf.HEALTH, Shelf.ALARMS})
MAX_HELD = 512  # hot events in memory, while the disk takes nothing
COUNTS_S = 5.0  # how long counts alone may wait to be written
SAVE_S = 60.0  # between two times that it is written down how much waits
REOPEN_S = 30.0  # between two tries to open a database that couldn't be, or to repair one
_TRIES = 4  # to store something, while the disk or its content fail
_GIVING_BACK = 16  # steps of a turn


class Store:
    """Events and counts of one device.

    Args:
        root: the spool's folder.
        samples: files that share its cap.
        max_bytes: the cap.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        root: Path,
        samples: SampleFiles,
        *,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.samples = samples
        self.policy = TelemetryPolicy()
        self.clock = clock
        self.budget = share_out(max_bytes)
        self.tallies = Tallies()
        self.parts = Parts()
        self.rater = Rater(self.tallies)
        self.held: deque[tuple[int, Entry]] = deque()
        self.repairs: list[Repair] = []
        self.since: float | None = None  # when the oldest cold event came
        self.too_large = 0
        self._database: Database | None = None
        self._damaged = False
        self._repair_at = float("-inf")  # not before
        self._doors = Doors()
        self._roomy = False  # as of the last time that room was made
        self._counted_at = self._saved_at = clock()
        self._opened_at: float | None = None
        self._reopen()

    @property
    def dropped(self) -> dict[str, int]:
        """Events that had to go, ever, by shelf; and those that damage took."""
        return self._doors.dropped

    @property
    def waiting(self) -> dict[str, int]:
        """Events that wait, by shelf."""
        return {shelf.label: self.parts.events([shelf]) for shelf in Shelf}

    @property
    def used_bytes(self) -> int:
        """Length of all files in the folder."""
        own = [path for path in self.root.iterdir() if path.name != SAMPLES]
        return self.samples.used_bytes + sum(map(room.path_bytes, own))

    @property
    def database(self) -> Database | None:
        """The open database; None while it can't be used."""
        return self._database

    # -------------------------------------------------------------------------------------- doing

    def recover(self) -> None:
        """Repair what an earlier process found, or left, damaged; may take long."""
        if self._damaged:
            self._repair()

    def follow(self, policy: TelemetryPolicy, max_bytes: int) -> None:
        """Go by a policy and a cap from the next turn on. Any thread may call it."""
        self.policy = policy
        self.rater.policy = policy.worth
        self.budget = share_out(max_bytes, self._database.page if self._database else None)

    def put(self, entries: Sequence[Entry]) -> list[bool]:
        """Keep events; returns of each whether it is kept, which then outlives the process."""
        kept = [False] * len(entries)
        wanted: list[int] = []
        doors, most = self._doors.levels, self.budget.event_bytes
        for number, entry in enumerate(entries):
            shelf, level = entry.place
            if level >= doors[shelf] and len(entry.data) <= most:
                wanted.append(number)
            else:
                self.too_large += len(entry.data) > most
                self._turn_away(entry)
        self.parts.sorting = not self._roomy
        if self.held and self._database is not None:
            self._put_held()
        for some, frames in room.slices(wanted, entries, self.budget, self.parts):
            for number in self._store(some, frames):
                kept[number] = True
            if not self._roomy:
                self._sort_some()
        return kept

    def lose(self, kind: str, model: str, day: int, count: int) -> None:
        """Count events that were lost before they were made."""
        self.tallies.count(self.tallies.key(day, kind, model), seen=count, dropped=count)
        self._doors.count(shelf_of(kind).label, count)

    def count_lost(self, events: int) -> None:
        """Count events as dropped whose tallies say so already, within a transaction."""
        self._doors.count(DAMAGED, events)

    def turn(self, today: int, *, finish: bool = False) -> None:
        """Write counts that wait, keep to the cap, give back what isn't needed."""
        if self._damaged and self.clock() >= self._repair_at:
            self._repair()
        if self._database is None and not self._reopen():
            return
        try:
            self._keep_to_cap()
            now = self.clock()
            save = finish or now - self._saved_at >= SAVE_S
            if save or (self.tallies.pending and now - self._counted_at >= COUNTS_S):
                with self.change(save=save) as (sql, _):
                    if self.tallies.total > self.budget.tallies:
                        self.tallies.trim(sql, self.budget, today)
            if self.held:
                self._put_held()
            self._give_back(finish=finish)
        except (sqlite3.Error, IntegrityError) as error:
            self.trouble(error)

    def close(self) -> None:
        """Close the database."""
        if self._database is not None:
            self._database.close()
            self._database = None

    # ------------------------------------------------------------------------------- transactions

    @contextmanager
    def change(self, *, save: bool = False) -> Iterator[tuple[sqlite3.Connection, Parts]]:
        """A transaction, with the counts that wait in it; as a whole or not at all.

        Raises:
            sqlite3.Error: as SQLite has it; pass it to `trouble`.
        """
        database = self._open_database()
        counted, drops = self.tallies.snapshot(), self._doors.snapshot()
        try:
            with database.change() as sql:
                yield sql, self.parts
                if self.tallies.pending or self._doors.changed:
                    self.tallies.write(sql, self.budget)
                    if self._doors.changed:
                        self._doors.write(sql)
                if save:
                    self.parts.save(sql)
        except BaseException:
            self.tallies.restore(counted)
            self._doors.restore(drops)
            raise
        self.tallies.written()
        self._doors.written()
        self._counted_at = self.clock()
        if save:
            self.parts.saved()
            self._saved_at = self.clock()

    def trouble(self, error: Exception) -> None:
        """Go on after a transaction that did not happen: reload what it was about, or repair it."""
        if not is_damage(error):
            _log.warning("spool: %s", error)
            self._reload()
            return
        _log.warning("spool: damaged: %s", error)
        self._damaged = True
        self._repair()

    # ------------------------------------------------------------------------------------ storing

    def _store(self, some: dict[int, Entry], frames: int | None) -> set[int]:
        """Store events in one transaction; returns which of them are kept."""
        for _ in range(_TRIES):
            try:
                some, frames = self._fit(some, frames), None
                if not some:
                    return set()
                with self.change() as (sql, parts):
                    came = Counter([entry.key for entry in some.values()])
                    parts.put(sql, some.values(), self.tallies.take(sql, came, self.budget))
            except (sqlite3.Error, IntegrityError) as error:
                self.trouble(error)
                if self._database is None or not (is_damage(error) or self._make_room(error)):
                    break
                continue
            if any(entry.shelf not in HOT_SHELVES for entry in some.values()):
                point("spool.appended")
                self.since = self.clock() if self.since is None else self.since
            return set(some)
        self._hold(some.values())
        return set()

    def _turn_away(self, entry: Entry) -> None:
        self.tallies.count(entry.key, seen=1, dropped=1)
        self._doors.count(entry.shelf.label)

    def _hold(self, entries: Iterable[Entry]) -> None:
        """Keep hot events in memory, the newest; count the others as dropped."""
        for entry in entries:
            if entry.event.kind not in HOT:
                self._turn_away(entry)
                continue
            self.held.append((self.parts.next_id, entry))
            self.parts.next_id += 1
            if len(self.held) > MAX_HELD:
                self._turn_away(self.held.popleft()[1])

    def _put_held(self) -> None:
        held, self.held = self.held, deque()
        entries = [entry for _, entry in held]
        for some, frames in room.slices(range(len(entries)), entries, self.budget, self.parts):
            self._store(some, frames)

    def _fit(self, some: dict[int, Entry], frames: int | None) -> dict[int, Entry]:
        """Make room for events, or turn those away that are worth less than what is kept."""
        while True:
            if not self._doors.open:
                frames, doors = None, self._doors.levels
                for number in [n for n, e in some.items() if e.place[1] < doors[e.shelf]]:
                    self._turn_away(some.pop(number))
            database = self._open_database()
            need = frames or room.frames_of(some.values(), database.page, self.parts)
            frames = None
            if not some or self._room(database, need) >= need:
                return some
            lowest, least = self.parts.lowest(), min(entry.place for entry in some.values())
            if lowest is not None and lowest.place <= least:
                self._drop_lowest(need)
                continue
            if least[0] not in BY_AGE:
                self._doors.shut(least[0], least[1] + 1)
            for number in [n for n, entry in some.items() if entry.place == least]:
                self._turn_away(some.pop(number))

    def _room(self, database: Database, need: int) -> int:
        """Pages that may be filled; samples are promised less room where that helps."""
        free, pages, kept = database.free_pages, database.pages, self.parts.growth
        limit = self._limit(database, pages + max(0, need - free))
        self._roomy = 2 * (pages - free + kept) < limit and self._doors.open
        return limit - room.reserve(self.budget) - kept - pages + free

    def _limit(self, database: Database, wanted: int) -> int:
        """How long the database may be, once samples have got what they are promised."""
        budget = self.budget
        other = room.quarantine_bytes(self.root)
        most = budget.pages(other)
        half = budget.cap // 2
        least = min(half, self.samples.used_bytes + budget.cap // 16)
        kept = self.parts.growth
        spare = (most - max(wanted, database.pages) - room.reserve(budget) - kept) * database.page
        wish = max(least, min(half, spare))
        # What the database takes by now can't be promised: the file must be shorter first.
        self.samples.allow(min(wish, (most - database.pages - kept) * database.page))
        limit = max(budget.pages(other + max(wish, self.samples.used_bytes)), 1)
        database.limit(max(limit, database.pages + kept))
        return limit

    def _drop_lowest(self, need: int) -> None:
        """Drop what is worth least, until so many pages are free or a transaction is full.

        Where it isn't known yet what that is, some of it is sorted instead.
        """
        lowest = self.parts.lowest()
        if lowest is not None and lowest.level == UNSORTED and self._sort(lowest, must=True):
            return
        database = self._open_database()
        limit = self._limit(database, database.pages + need)
        need = max(need, limit // 64) + room.reserve(self.budget)
        frames = 0
        with self.change(save=True) as (sql, parts):
            while (part := parts.lowest()) is not None:
                if part.level == UNSORTED:
                    if frames:
                        break
                    part = parts.of(part.shelf)[1]  # what is sorted goes, to make room to sort
                cost = room.drop_frames(part, database.page, self.budget)
                if frames and frames + cost > self.budget.change_frames:
                    break
                frames += cost
                self._drop(sql, parts, part)
                if limit - database.pages + database.free_pages >= need:
                    break
        point("spool.dropped")

    def _drop(self, sql: sqlite3.Connection, parts: Parts, part: Part) -> None:
        last = part.level == LEVELS - 1
        if part.shelf in BY_AGE or last:
            counts = parts.drop_oldest(sql, part, room.oldest(part, self.budget))
        else:
            counts = parts.drop(sql, part)
        self.tallies.drop(sql, counts)
        self._doors.count(part.shelf.label, counts.total())
        self._doors.shut(part.shelf, 0 if part.shelf in BY_AGE else min(part.level + 1, LEVELS - 1))

    def _sort(self, part: Part, *, must: bool) -> bool:
        """Sort some of a part's rows; False where there is no room to.

        Then what is sorted must go first; where nothing is, and it ``must`` be, some are dropped.
        """
        database, door = self._open_database(), self._doors[part.shelf]
        rows = sorting.oldest(database.read, self.parts, part, self.budget)
        spare = max(self.parts.growth, self._limit(database, database.pages) - database.pages)
        higher = sorting.door_for(rows, door, spare + database.free_pages, database.page)
        if higher > door and (not must or len(self.parts.of(part.shelf)) > 1):
            return False
        with self.change(save=True) as (sql, parts):
            counts = sorting.move(sql, parts, part, rows, higher)
            self.tallies.drop(sql, counts)
            self._doors.count(part.shelf.label, counts.total())
            if higher > door:
                self._doors.shut(part.shelf, min(higher, LEVELS - 1))
        return True

    def _sort_some(self) -> None:
        try:
            if self._database is not None and (part := self.parts.unsorted()) is not None:
                self._sort(part, must=False)
        except (sqlite3.Error, IntegrityError) as error:
            self.trouble(error)

    def _keep_to_cap(self) -> None:
        """Drop and give back until the database is as short as it must be by now."""
        database = self._open_database()
        database.bound(self.budget)
        self.samples.shrink(self.budget.cap // 2)
        while True:
            limit = self._limit(database, database.pages)
            if database.pages <= limit:
                break
            filled = database.pages - database.free_pages
            if filled > limit and self.parts.lowest() is not None:
                self._drop_lowest(filled - limit)
            elif not self._shorten(database, database.pages - limit):
                break
        if database.pages - database.free_pages < limit // 2:
            self._doors.reset()

    def _give_back(self, *, finish: bool) -> None:
        """Return pages that hold nothing, unless the spool is full and will fill them soon."""
        database = self._open_database()
        slack = min(64, self._limit(database, database.pages) // 16)
        if not self._doors.open or (database.free_pages < 2 * slack and not finish):
            return
        for _ in range(_GIVING_BACK):
            if database.free_pages <= slack or not self._shorten(
                database, database.free_pages - slack
            ):
                break
        if finish:
            database.empty_log()

    def _shorten(self, database: Database, pages: int) -> bool:
        """Make the file shorter by some of these pages; False when nothing is free."""
        before = database.pages
        database.give_back(max(1, min(pages, self.budget.change_frames // 4)))
        if database.pages == before:
            return False
        database.empty_log()  # now the file, too, ends where the database does
        return True

    def _make_room(self, error: Exception) -> bool:
        """After "full" by our own limit, where an estimate fell short: whether there is more."""
        code = getattr(error, "sqlite_errorcode", None)
        if code != sqlite3.SQLITE_FULL or self.parts.lowest() is None:
            return False
        database = self._open_database()
        try:
            if database.free_pages == 0 and database.pages >= self._limit(database, 0) - 1:
                self._drop_lowest(self.budget.change_frames // 4)
                return True
        except (sqlite3.Error, IntegrityError) as again:
            self.trouble(again)
            return is_damage(again)
        return False

    def _open_database(self) -> Database:
        if self._database is None:
            msg = "the spool's database can't be opened"
            raise sqlite3.OperationalError(msg)
        return self._database

    def _reopen(self) -> bool:
        """Open the database, unless that was tried a moment ago."""
        now = self.clock()
        if self._damaged or (self._opened_at is not None and now - self._opened_at < REOPEN_S):
            return False
        self._opened_at = now
        self.samples.allow(0)  # until it is known what the database leaves
        try:
            if Repair.begun(self.root):
                self._damaged = True  # an earlier process didn't come to its end
                return False
            self._database = Database(self.root / NAME, self.budget)
            self.budget = share_out(self.budget.cap, self._database.page)
            self._database.bound(self.budget)
            self._load(self._database)
            self._room(self._database, 0)
        except (OSError, sqlite3.Error, IntegrityError) as error:
            self.close()
            self._damaged = is_damage(error)
            _log.warning("spool: %s", error)
            return False
        return True

    def _load(self, database: Database) -> None:
        sql = database.read
        with database.change() as writing:
            writing.execute("INSERT OR IGNORE INTO meta VALUES ('spool', ?)", (self.tallies.spool,))
        check_counts(sql)
        self.tallies.load(sql)
        self.parts.load(sql)
        self._doors.load(sql)
        if self.parts.events(set(Shelf) - HOT_SHELVES):
            self.since = float("-inf")  # an earlier process left it: due at once

    def _reload(self) -> None:
        """Forget what a transaction did that didn't happen."""
        if self._database is None:
            return
        try:
            self.tallies.failed(self._database.read)
            self.parts.load(self._database.read)
        except sqlite3.Error as error:
            if is_damage(error):
                self.trouble(error)

    def _repair(self) -> None:
        self.close()
        self.samples.allow(0)
        try:
            repair = Repair.run(self.root, self.budget, self.rater.policy)
        except (OSError, sqlite3.Error) as error:
            _log.warning("spool: can't be repaired yet: %s", error)
            self._repair_at = self.clock() + REOPEN_S
            return
        self.repairs.append(repair)
        self._damaged, self._opened_at = False, None
        self._reopen()
