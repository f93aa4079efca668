"""Exact counts of what came, what had to go and what was sent, by day, kind, model, class, score.

Rules kept here:

- Counts are written in the transaction that stores, drops or sends the events they count. So at any
  moment, for each tally: seen = dropped + sent + in segments on their way + waiting.
- They are bounded: classes beyond `MAX_CLASSES` of a model count together, as do models beyond
  `MAX_MODELS` (as `OTHERS`), and the scores of a day that has too many tallies.
- A day goes when all its events are accounted for and its account was sent. Should the clock come
  back to it, its counts begin again under another spool's name: accounts never go down.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from datetime import date
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import IntegrityError
from edgefleet.protocol.event import Account, Tally
from edgefleet_runtime.spool.budget import ACCOUNT_BYTES, ACCOUNT_BYTES_A_TALLY

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping

    from edgefleet_runtime.spool.budget import Budget

MAX_CLASSES = 256  # of a model
MAX_MODELS = 256  # and streams
OTHERS = "*"
_DAYS_IN_MEMORY = 4
_MAX_KEYS = 4096  # that are made once and used again
_PER_DAY = 1 << 16  # ids of a day's tallies
SEEN_ONLY, DROPPED_TOO = 1, 2  # how a day changed since its last account


class Key(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What a tally counts, as of `edgefleet.protocol.event.Tally`; ``day`` is an ordinal."""

    day: int
    kind: str
    model: str
    top: int | None = None
    band: int | None = None


class Shares:
    """How often each class of a model was seen, for as long as its days are remembered."""

    def __init__(self) -> None:
        self.classes: dict[int, int] = {}
        self.total = 0

    def add(self, top: int, count: int = 1) -> int:
        """Count a class; returns how often it was seen.

        A new class is counted by itself while there are few. Any other only adds to the total, and
        was seen 0 times.
        """
        self.total += count
        before = self.classes.get(top)
        if before is None:
            if len(self.classes) >= MAX_CLASSES:
                return 0
            before = 0
        self.classes[top] = before + count
        return before + count


class Tallies:
    """Counts in memory until they are written, and their places in the database."""

    def __init__(self, spool: str | None = None) -> None:
        self.spool = spool or uuid.uuid4().hex
        self.total = 0
        self._begun = 0  # days that began again
        self._shares: dict[str, Shares] = {}
        self._keys: dict[tuple[int, str, str, int | None, int], Key] = {}
        self._pending: dict[Key, list[int]] = {}
        self._days: OrderedDict[int, dict[Key, int]] = OrderedDict()
        self._changed: dict[int, int] = {}

    # ---------------------------------------------------------------------------------- counting

    def shares(self, model: str) -> Shares:
        """Of a model; of all others together once there are too many."""
        found = self._shares.get(model)
        if found is None:
            if len(self._shares) >= MAX_MODELS:
                model = OTHERS
            found = self._shares.setdefault(model, Shares())
        return found

    def key(self, day: int, kind: str, model: str) -> Key:
        """The tally of such events without a class."""
        if model and model not in self._shares:
            self.shares(model)
            model = model if model in self._shares else OTHERS
        return Key(day, kind, model)

    def seen(self, day: int, kind: str, model: str, top: int, band: int) -> tuple[Key, float]:
        """Take note of a class; returns its tally, and its share in what was seen of the model."""
        shares = self._shares.get(model)
        if shares is None:
            shares = self.shares(model)
            model = model if model in self._shares else OTHERS
        count = shares.add(top)
        found = (day, kind, model, top if count else None, band)
        key = self._keys.get(found)
        if key is None:
            if len(self._keys) >= _MAX_KEYS:
                self._keys.clear()
            key = self._keys[found] = Key(*found)
        return key, (count or 1) / shares.total

    def count(self, key: Key, *, seen: int = 0, dropped: int = 0, sent: int = 0) -> None:
        """Add to a tally; in the database with the next `write`."""
        counts = self._pending.setdefault(key, [0, 0, 0])
        counts[0] += seen
        counts[1] += dropped
        counts[2] += sent

    @property
    def pending(self) -> bool:
        """Whether counts wait to be written."""
        return bool(self._pending)

    def restore(self, before: Mapping[Key, tuple[int, int, int]]) -> None:
        """Go back to counts that `snapshot` gave: what was counted since didn't happen."""
        self._pending = {key: list(counts) for key, counts in before.items()}

    def snapshot(self) -> dict[Key, tuple[int, int, int]]:
        """The counts that wait to be written."""
        return {key: (c[0], c[1], c[2]) for key, c in self._pending.items()}

    # ------------------------------------------------------------------------ within a transaction

    def load(self, sql: sqlite3.Connection) -> None:
        """Take over what the database says."""
        meta = dict(sql.execute("SELECT key, value FROM meta").fetchall())
        if "spool" in meta:
            self.spool, self._begun = str(meta["spool"]), int(meta.get("begun", 0))
        self.total = sql.execute("SELECT count(*) FROM tally").fetchone()[0]
        self._days.clear()
        self._changed = dict(sql.execute("SELECT day, changed FROM day").fetchall())
        self._shares = {}
        for model, top, seen in sql.execute(
            "SELECT model, top, sum(seen) FROM tally GROUP BY model, top ORDER BY 3 DESC"
        ):
            shares = self.shares(model)
            if top is not None:
                shares.add(top, seen)

    def identity(self, sql: sqlite3.Connection, key: Key, budget: Budget) -> int:
        """A tally's id in the database, where it is begun if need be."""
        known = self._days.get(key.day, {}).get(key)
        if known is not None:
            return known
        day = self._day(sql, key.day, budget)
        ids = self._ids(sql, day)
        key = msgspec.structs.replace(key, day=day)
        if key not in ids and len(ids) >= budget.tallies_a_day:
            key = Key(day, key.kind, key.model)
            if key not in ids and len(ids) >= budget.tallies_a_day + MAX_MODELS:
                key = Key(day, key.kind, OTHERS)
        found = ids.get(key)
        if found is None:
            found = day * _PER_DAY + len(ids)
            sql.execute(
                "INSERT INTO tally VALUES (?, ?, ?, ?, ?, 0, 0, 0)",
                (found, key.kind, key.model, key.top, key.band),
            )
            ids[key] = found
            self.total += 1
        return found

    def take(
        self, sql: sqlite3.Connection, came: Mapping[Key, int], budget: Budget
    ) -> dict[Key, int]:
        """Count events that are kept; returns the ids of their tallies."""
        ids = {}
        for key, count in came.items():
            ids[key] = self.identity(sql, key, budget)
            self.count(key, seen=count)
        return ids

    def write(self, sql: sqlite3.Connection, budget: Budget) -> None:
        """Add what was counted. `written` or `failed` must follow the transaction."""
        rows = []
        for key, (seen, dropped, sent) in self._pending.items():
            identity = self.identity(sql, key, budget)
            rows.append((seen, dropped, sent, identity))
            if seen or dropped:
                self._touch(sql, identity // _PER_DAY, dropped=bool(dropped))
        self.add(sql, rows)

    @staticmethod
    def add(sql: sqlite3.Connection, rows: Iterable[tuple[int, int, int, int]]) -> None:
        """Add (seen, dropped, sent) to tallies by id."""
        sql.executemany(
            "UPDATE tally SET seen=seen+?, dropped=dropped+?, sent=sent+? WHERE id=?", rows
        )

    def drop(self, sql: sqlite3.Connection, counts: Mapping[int, int]) -> None:
        """Count stored events as dropped, by the ids of their tallies.

        Raises:
            IntegrityError: one is no id.
        """
        if not all(type(identity) is int for identity in counts):
            msg = "an event of the spool is damaged: nothing counts it"
            raise IntegrityError(msg, cure="what can be read is saved by itself")
        self.add(sql, [(0, count, 0, identity) for identity, count in counts.items()])
        for day in {identity // _PER_DAY for identity in counts}:
            self._touch(sql, day, dropped=True)

    def written(self) -> None:
        """The transaction is done."""
        self._pending.clear()

    def failed(self, sql: sqlite3.Connection | None) -> None:
        """The transaction did not happen: forget what was only in it."""
        self._days.clear()
        if sql is not None:
            self._changed = dict(sql.execute("SELECT day, changed FROM day").fetchall())
            self.total = sql.execute("SELECT count(*) FROM tally").fetchone()[0]

    # ---------------------------------------------------------------------------------- accounts

    @property
    def changed(self) -> int:
        """How any day changed since its last account: 0, `SEEN_ONLY` or `DROPPED_TOO`."""
        return max(self._changed.values(), default=0)

    def accounts(self, sql: sqlite3.Connection, max_bytes: int) -> Iterator[Account]:
        """A new account of each day that changed, within a transaction, until they get too long.

        Those that are left come with the next call.
        """
        for day in sorted(day for day, changed in self._changed.items() if changed):
            if max_bytes <= 0:
                return
            spool, number = sql.execute(
                "UPDATE day SET number=number+1, changed=0 WHERE day=? RETURNING spool, number",
                (day,),
            ).fetchone()
            self._changed[day] = 0
            tallies = tuple(tally for tally, _ in self.of_day(sql, day))
            max_bytes -= ACCOUNT_BYTES + len(tallies) * ACCOUNT_BYTES_A_TALLY
            yield Account(
                spool=spool, day=date.fromordinal(day).isoformat(), number=number, tallies=tallies
            )

    @staticmethod
    def of_day(sql: sqlite3.Connection, day: int) -> Iterator[tuple[Tally, int]]:
        """The tallies of a day, and how many of the events of each were sent."""
        for kind, model, top, band, seen, dropped, sent in sql.execute(
            "SELECT kind, model, top, band, seen, dropped, sent FROM tally WHERE id >= ? AND id < ?"
            " ORDER BY kind, model, top, band",
            (day * _PER_DAY, (day + 1) * _PER_DAY),
        ):
            yield (
                Tally(kind=kind, model=model, top=top, band=band, seen=seen, dropped=dropped),
                sent,
            )

    def trim(self, sql: sqlite3.Connection, budget: Budget, today: int) -> None:
        """Let days go that are settled, the oldest first, while there are too many tallies."""
        for (day,) in sql.execute("SELECT day FROM day WHERE changed=0 ORDER BY day").fetchall():
            if self.total <= budget.tallies:
                return
            span = (day * _PER_DAY, (day + 1) * _PER_DAY)
            open_, held = sql.execute(
                "SELECT total(seen - dropped - sent), count(*) FROM tally WHERE id >= ? AND id < ?",
                span,
            ).fetchone()
            if day == today or open_:
                continue
            sql.execute("DELETE FROM tally WHERE id >= ? AND id < ?", span)
            sql.execute("DELETE FROM day WHERE day = ?", (day,))
            self._days.pop(day, None)
            self._changed.pop(day, None)
            self.total -= held
            self._begun += 1
            sql.execute("REPLACE INTO meta VALUES ('begun', ?)", (self._begun,))

    # ------------------------------------------------------------------------------------ private

    def _ids(self, sql: sqlite3.Connection, day: int) -> dict[Key, int]:
        ids = self._days.get(day)
        if ids is None:
            ids = {
                Key(day, kind, model, top, band): identity
                for identity, kind, model, top, band in sql.execute(
                    "SELECT id, kind, model, top, band FROM tally WHERE id >= ? AND id < ?",
                    (day * _PER_DAY, (day + 1) * _PER_DAY),
                )
            }
            self._days[day] = ids
            while len(self._days) > _DAYS_IN_MEMORY:
                self._days.popitem(last=False)
        self._days.move_to_end(day)
        return ids

    def _day(self, sql: sqlite3.Connection, day: int, budget: Budget) -> int:
        """The day itself, begun if need be; the nearest one where there can be no more."""
        if day in self._changed:
            return day
        if self._changed and self.total >= 2 * budget.tallies:
            return min(self._changed, key=lambda known: (abs(known - day), known))
        spool = f"{self.spool}.{self._begun}" if self._begun else self.spool
        sql.execute("INSERT INTO day VALUES (?, ?, 0, 0)", (day, spool))
        self._changed[day] = 0
        return day

    def _touch(self, sql: sqlite3.Connection, day: int, *, dropped: bool) -> None:
        how = DROPPED_TOO if dropped else SEEN_ONLY
        if self._changed.get(day, how) < how:  # a damaged row may be counted by a day that isn't
            sql.execute("UPDATE day SET changed=? WHERE day=?", (how, day))
            self._changed[day] = how
