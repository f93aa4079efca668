"""What leaves the store: hot events as they are, the others as batches of segments.

Rules kept here:

- A batch's events leave the database in the transaction that names its segments, whose files are
  whole by then. What a process that dies before that has left is removed, unseen by anybody.
- An event counts as sent when the channel has taken its segment.
- Accounts are made for a batch: once in `ACCOUNT_S` when something was dropped, in `QUIET_S` when
  events only came, and whenever everything is to be sent.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import DocumentError, IntegrityError
from edgefleet.protocol.event import Account, Event, new_event, read_event
from edgefleet_runtime.spool.leisure import Leisure
from edgefleet_runtime.spool.packing import FOLDER, pack
from edgefleet_runtime.spool.parts import Row
from edgefleet_runtime.spool.room import row_bytes
from edgefleet_runtime.spool.store import HOT_SHELVES
from edgefleet_runtime.spool.tallies import DROPPED_TOO
from edgefleet_runtime.spool.worth import LEAN_WITHOUT, Shelf
from edgefleet_runtime.sync.outgoing import Batch, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime

    from edgefleet_runtime.spool.packing import Packed
    from edgefleet_runtime.spool.parts import Part
    from edgefleet_runtime.spool.store import Store

_log = logging.getLogger(__name__)

ACCOUNT_S = 60.0
QUIET_S = 3600.0
_UNCOUNTED = 0  # the tally of accounts: they count others
_ENCODER = msgspec.json.Encoder()


class Departures:
    """The store's `edgefleet_runtime.sync.outgoing.Outgoing`.

    Args:
        store: what waits.
        device: the device's name.
        now: the time that accounts are stamped with.
        clock: monotonic seconds.
        leisure: for pauses in long work; None for none.
    """

    def __init__(
        self,
        store: Store,
        *,
        device: str,
        now: Callable[[], datetime],
        clock: Callable[[], float] = time.monotonic,
        leisure: Leisure | None = None,
    ) -> None:
        self._store = store
        self._leisure = leisure or Leisure()
        self._device = device
        self._now = now
        self._clock = clock
        self._folder = store.root / FOLDER
        self._leaving: dict[str, Segment] | None = None
        self._accounted_at = clock()

    @property
    def pending(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._store.held or next(iter(self._store.parts), None) or self._left())

    @property
    def on_the_way(self) -> int:
        """Events in segments that are being sent."""
        return sum(segment.events for segment in self._left().values())

    # ---------------------------------------------------------------------------------------- hot

    def hot(self, max_events: int, max_bytes: int) -> list[tuple[int, Event]]:
        """As of `Outgoing.hot`."""
        found: list[tuple[int, Event]] = []
        size = 0
        try:
            for shelf in (Shelf.ALARMS, Shelf.HEALTH):
                for number, data in self._newest(shelf):
                    size += len(data)
                    if len(found) >= max_events or (found and size > max_bytes):
                        return found
                    found.append((number, read_event(data)))
        except (sqlite3.Error, IntegrityError, DocumentError) as error:
            self._store.trouble(error)
        return found

    def hot_sent(self, numbers: Collection[int]) -> None:
        """As of `Outgoing.hot_sent`."""
        store = self._store
        wanted = set(numbers)
        for number, entry in list(store.held):
            if number in wanted:
                store.held.remove((number, entry))
                store.tallies.count(entry.key, seen=1, sent=1)
                wanted.discard(number)
        if not wanted:
            return
        try:
            with store.change(save=True) as (sql, parts):
                sent: Counter[int] = Counter()
                for shelf in HOT_SHELVES:
                    for part in parts.of(shelf):
                        sent += parts.remove(sql, part, wanted)
                store.tallies.add(sql, [(0, 0, count, tally) for tally, count in sent.items()])
        except (sqlite3.Error, IntegrityError) as error:
            store.trouble(error)

    def _newest(self, shelf: Shelf) -> Iterator[tuple[int, bytes]]:
        store = self._store
        for number, entry in reversed(store.held):
            if entry.shelf is shelf:
                yield number, entry.data
        if store.database is not None:
            for part in store.parts.of(shelf):
                for row in store.parts.rows(store.database.read, part, newest=True):
                    yield row.id, row.event

    # --------------------------------------------------------------------------------------- cold

    def batch(self, max_bytes: int, *, lean: bool, everything: bool) -> Batch | None:
        """As of `Outgoing.batch`."""
        left = self._left()
        if not left and self._leaving is not None and self._store.database is not None:
            try:
                self._account(everything=everything)
            except (sqlite3.Error, IntegrityError, DocumentError) as error:
                self._store.trouble(error)  # the next one will tell as much
            try:
                if self._due(lean=lean, everything=everything):
                    self._pack(min(max_bytes, self._store.budget.batch_bytes), lean=lean)
            except (sqlite3.Error, IntegrityError, DocumentError) as error:
                self._store.trouble(error)
            except OSError as error:
                _log.warning("spool: no room to make segments: %s", error)
            left = self._left()
        return Batch(tuple(left[name] for name in sorted(left))) if left else None

    def sent(self, batch: Batch, name: str) -> None:
        """As of `Outgoing.sent`."""
        store, segment = self._store, self._left().get(name)
        if segment is None or segment not in batch.segments:
            return
        try:
            with store.change() as (sql, _):
                counts = sql.execute(
                    "DELETE FROM leaving_tally WHERE name=? RETURNING tally, events", (name,)
                ).fetchall()
                sql.execute("DELETE FROM leaving WHERE name=?", (name,))
                store.tallies.add(sql, [(0, 0, events, tally) for tally, events in counts])
        except (sqlite3.Error, IntegrityError) as error:
            store.trouble(error)  # it goes once more
            return
        segment.path.unlink(missing_ok=True)
        del self._left()[name]

    def recover(self) -> None:
        """Look at what an earlier process left: files that nobody names, names without a file."""
        self._leaving = left = self._read()
        if left is None:
            return  # what can't be read now may name any file
        store = self._store
        known = {segment.path for segment in left.values()}
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            if path not in known:
                path.unlink()
        lost = [name for name, segment in left.items() if not segment.path.exists()]
        if not lost:
            return
        try:
            with store.change() as (sql, _):
                for name in lost:
                    counts = sql.execute(
                        "DELETE FROM leaving_tally WHERE name=? RETURNING tally, events", (name,)
                    ).fetchall()
                    sql.execute("DELETE FROM leaving WHERE name=?", (name,))
                    store.tallies.drop(sql, dict(counts))
                    store.count_lost(left[name].events)
        except (sqlite3.Error, IntegrityError) as error:
            store.trouble(error)
        self._leaving = None

    def _left(self) -> dict[str, Segment]:
        """Segments on their way, by name; none where that can't be read now."""
        if self._leaving is None:
            self._leaving = self._read()
        return self._leaving or {}

    def _read(self) -> dict[str, Segment] | None:
        database = self._store.database
        if database is None:
            return None
        try:
            rows = database.read.execute("SELECT name, file, events FROM leaving").fetchall()
        except (sqlite3.Error, IntegrityError) as error:
            self._store.trouble(error)
            return None
        found = {}
        for name, file, events in rows:
            path = self._folder / file
            size = path.stat().st_size if path.exists() else 0
            found[name] = Segment(name, path, size, events)
        return found

    def _due(self, *, lean: bool, everything: bool) -> bool:
        store, shelves = self._store, _shelves(lean=lean)
        if not store.parts.events(shelves):
            return False
        policy = store.policy
        enough = min(policy.segment_max_bytes, store.budget.batch_bytes)
        old = store.since is not None and self._clock() - store.since >= policy.segment_max_age_s
        accounts = bool(store.parts.events([Shelf.ACCOUNTS]))
        return everything or old or accounts or store.parts.size(shelves) >= enough

    def _pack(self, max_bytes: int, *, lean: bool) -> None:
        store = self._store
        if (database := store.database) is None:
            return
        rows, taken = self._choose(database.read, database.page, max_bytes, lean=lean)
        spool = store.tallies.spool[:8]
        number = store.parts.next_id
        store.parts.next_id += 1  # a name that was never given, whatever becomes of this batch
        prefix = f"{number:012x}-{spool}-"
        packed = pack(rows, self._folder, device=self._device, prefix=prefix, leisure=self._leisure)
        try:
            with store.change(save=True) as (sql, parts):
                for part, last in taken:
                    parts.take(sql, part, last)
                self._name(sql, packed)  # many names may need the pages that the events leave
        except BaseException:
            for each in packed:
                each.segment.path.unlink(missing_ok=True)
            raise
        self._leaving = {each.segment.name: each.segment for each in packed}
        if not store.parts.events(set(Shelf) - HOT_SHELVES):
            store.since = None

    def _choose(
        self, sql: sqlite3.Connection, page: int, max_bytes: int, *, lean: bool
    ) -> tuple[list[Row], list[tuple[Part, int]]]:
        """The rows of the next batch, and each part's last one of them."""
        store = self._store
        frames = float(store.budget.change_frames * 3 // 4)
        rows: list[Row] = []
        taken: list[tuple[Part, int]] = []
        shelves = _shelves(lean=lean)
        for part in reversed(list(store.parts)):
            if part.shelf not in shelves:
                continue
            frames -= 3
            last = 0
            for row in self._leisure.through(store.parts.rows(sql, part)):
                max_bytes -= len(row.event)
                frames -= row_bytes(len(row.event), page) / page
                if rows and (max_bytes < 0 or frames < 0):
                    break
                rows.append(row)
                last = row.id
            if last:
                taken.append((part, last))
            if max_bytes < 0 or frames < 0:
                break
        return rows, taken

    @staticmethod
    def _name(sql: sqlite3.Connection, packed: list[Packed]) -> None:
        sql.executemany(
            "INSERT INTO leaving VALUES (?, ?, ?)",
            [(p.segment.name, p.segment.path.name, p.segment.events) for p in packed],
        )
        sql.executemany(
            "INSERT INTO leaving_tally VALUES (?, ?, ?)",
            [
                (p.segment.name, tally, events)
                for p in packed
                for tally, events in p.tallies.items()
                if tally != _UNCOUNTED
            ],
        )

    # ----------------------------------------------------------------------------------- accounts

    def _account(self, *, everything: bool) -> None:
        """Make accounts of what changed, when they are due."""
        store = self._store
        if not (store.tallies.changed or store.tallies.pending):
            return
        every_s = ACCOUNT_S if store.tallies.changed == DROPPED_TOO else QUIET_S
        if not everything and self._clock() - self._accounted_at < every_s:
            return
        if store.tallies.pending:
            with store.change():
                pass  # what was counted belongs into the account
        with store.change(save=True) as (sql, parts):
            made = list(store.tallies.accounts(sql, store.budget.account_bytes))
            days = {(account.spool, account.day) for account in made}
            for part in parts.of(Shelf.ACCOUNTS):
                old = [row.id for row in parts.rows(sql, part) if _day_of(row) in days]
                parts.remove(sql, part, old)
            rows = []
            for account in made:
                data = _ENCODER.encode(new_event(account, time=self._now()))
                rows.append(Row(parts.next_id, _UNCOUNTED, data).stored)
                parts.next_id += 1
            parts.add(sql, Shelf.ACCOUNTS, 0, rows)
        self._accounted_at = self._clock()


def _shelves(*, lean: bool) -> set[Shelf]:
    """The shelves that go into batches."""
    return set(Shelf) - HOT_SHELVES - (LEAN_WITHOUT if lean else frozenset())


def _day_of(row: Row) -> tuple[str, str]:
    account = read_event(row.event).payload()
    return (account.spool, account.day) if isinstance(account, Account) else ("", "")
