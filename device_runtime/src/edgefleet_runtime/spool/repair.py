"""Builds the database anew from what can still be read of a damaged one, the best first.

Rules kept here:

- The cap holds: what is read goes into a compressed file first, into the room that the log and the
  segments leave; then the damaged database goes, and a new one is filled from that file.
- Every step may be the last of a process. Until the compressed file has its name, the damaged
  database stands; until the new database has its name, the compressed file does.
- A row that isn't what was written is left out. What is lost is counted as dropped, by tally; where
  the counts themselves can't be read, they begin again under another spool's name.
- The damaged file is set aside for whoever wants to look at it, if it is small beside the cap.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edgefleet.errors import AccessDeniedError, DocumentError, IntegrityError
from edgefleet.protocol.event import read_event
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.typed import decoder
from edgefleet_runtime.faults import point
from edgefleet_runtime.spool.database import (
    COUNTS,
    LOG_SUFFIX,
    NAME,
    Database,
    check_counts,
    is_damage,
    text_of,
)
from edgefleet_runtime.spool.parts import Parts, Row, checked, level_of, levels_of, table_of
from edgefleet_runtime.spool.rating import Rater
from edgefleet_runtime.spool.room import QUARANTINE, folder_bytes, row_bytes
from edgefleet_runtime.spool.tallies import Tallies
from edgefleet_runtime.spool.worth import UNSORTED, Shelf
from edgefleet_runtime.store.durable import sync_folder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.protocol.policy import WorthPolicy
    from edgefleet_runtime.spool.budget import Budget

_log = logging.getLogger(__name__)

SAVED = "saved.ndjson.zst"
_PARTIAL = f".{SAVED}.partial"
RESTORING = "restoring.db"
DAMAGED = "damaged"  # what these events count as, beside those that shelves had no room for
_PROBES = 512  # a table, for rows on the far side of a damaged page
_LAST_ID = 1 << 48
_BLOCK = 32 << 10  # bytes that are compressed at once
_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.checksum_flag: 1,  # or damage could show as other counts
}
_UNREADABLE = (zstd.ZstdError, msgspec.DecodeError, DocumentError, TypeError, ValueError)
_FEED = 4 << 10  # compressed bytes taken at once
# A file system that failed is mounted so by the kernel; then removing what isn't there fails, too.
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


class Repair(NamedTuple):
    """What became of a damaged database.

    Attributes:
        saved: events that are in the new one.
        lost: events that are not; None where the counts were lost, too.
    """

    saved: int
    lost: int | None

    @staticmethod
    def begun(root: Path) -> bool:
        """Whether a process has not come to the end of one; what it had only begun to save goes.

        Raises:
            AccessDeniedError: the folder can't be changed.
            OSError: the disk failed otherwise.
        """
        try:
            (root / _PARTIAL).unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            raise AccessDeniedError(
                f"the spool's folder {root} can't be written: {error.strerror}",
                cure="check its disk, and mount it so that this user may write there",
            ) from error
        return (root / SAVED).exists()

    @classmethod
    def run(cls, root: Path, budget: Budget, worth: WorthPolicy) -> Repair:
        """Repair the database in a folder, or go on where an earlier process stopped.

        Raises:
            AccessDeniedError: the folder can't be changed; to be tried again.
            StorageFullError: no room on the disk; likewise.
            OSError: the disk failed otherwise; likewise.
            sqlite3.Error: likewise.
        """
        with translate_full(root):
            if not cls.begun(root):
                _save(root, budget)
            elif not _is_whole(root / SAVED):
                _log.warning("spool: %s is damaged, too", SAVED)
                (root / SAVED).write_bytes(b"")
            _set_aside(root, budget)
            try:
                done = _restore(root, budget, worth)
            except _UNREADABLE as error:
                _log.warning("spool: %s is damaged, too: %s", SAVED, error)
                (root / SAVED).write_bytes(b"")
                _set_aside(root, budget)
                done = _restore(root, budget, worth)
            (root / RESTORING).replace(root / NAME)
            sync_folder(root)
            point("spool.restored")
            (root / SAVED).unlink()
        _log.warning("spool: %d events were read from a damaged database", done.saved)
        return done


# ------------------------------------------------------------------------------------------ reading


def _save(root: Path, budget: Budget) -> None:
    partial = root / _PARTIAL
    room = budget.cap - folder_bytes(root) - 2 * _BLOCK
    with partial.open("wb") as to:
        compressor = zstd.ZstdCompressor(options=_OPTIONS)
        block: list[bytes] = []
        size = 0
        for line in _lines(root / NAME):
            block.append(line)
            size += len(line)
            if size >= _BLOCK:
                if to.tell() + size > room:
                    break  # what is left is worth less
                to.write(compressor.compress(b"".join(block), compressor.FLUSH_BLOCK))
                block, size = [], 0
        if to.tell() + size <= room + _BLOCK:
            to.write(compressor.compress(b"".join(block)))
        to.write(compressor.flush())
        to.flush()
        os.fsync(to.fileno())
    partial.replace(root / SAVED)
    sync_folder(root)
    point("spool.saved")


def _lines(path: Path) -> Iterator[bytes]:
    """A damaged database as lines of JSON: counts, if all can be read, then rows, best first."""
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.text_factory = text_of
        try:
            for setting in ("locking_mode=EXCLUSIVE", "wal_autocheckpoint=0", "cell_size_check=ON"):
                sql.execute(f"PRAGMA {setting}").fetchall()
            tables = {
                name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
        except (sqlite3.Error, IntegrityError) as error:
            if not is_damage(error):
                raise  # to be tried again: what can't be read now may be whole
            _log.warning("spool: nothing of %s can be read: %s", path.name, error)
            return
        if _readable(sql):
            for table in COUNTS:
                for row in sql.execute(f"SELECT * FROM {table}"):  # noqa: S608 - ours
                    yield _line(table, *row)
        for shelf, level in _best_first():
            if (table := table_of(shelf, level)) in tables:
                for of, row in _rows(sql, table, level):
                    yield _line("event", shelf, of, row.id, row.tally, msgspec.Raw(row.event))


def _best_first() -> Iterator[tuple[Shelf, int]]:
    for shelf in reversed(Shelf):
        for level in reversed(levels_of(shelf)):
            yield shelf, level


def _line(*values: object) -> bytes:
    return msgspec.json.encode(values) + b"\n"


def _readable(sql: sqlite3.Connection) -> bool:
    """Whether all counts can be read, and could be right."""
    try:
        check_counts(sql, COUNTS)
        for table in COUNTS:
            for row in sql.execute(f"SELECT * FROM {table}"):  # noqa: S608 - ours
                _line(*row)
        named = sql.execute("SELECT count(*) FROM meta WHERE key='spool'").fetchone()[0]
    except (sqlite3.Error, IntegrityError) as error:
        _log.warning("spool: the counts can't be read: %s", error)
        return False
    return bool(named)


def _rows(sql: sqlite3.Connection, table: str, level: int) -> Iterator[tuple[int, Row]]:
    """What can be read of a table, with levels: from both ends, then from probes in between."""
    of = "level" if level == UNSORTED else str(level)
    gaps = [(1, _LAST_ID)]
    probes = 0
    while gaps and probes < _PROBES:
        probes += 1
        low, high = gaps.pop()
        for order in ("ASC", "DESC"):
            try:
                for found in sql.execute(
                    f"SELECT id, tally, crc, event, {of} FROM {table}"  # noqa: S608 - ours
                    f" WHERE id BETWEEN ? AND ? ORDER BY id {order}",
                    (low, high),
                ):
                    if order == "ASC":
                        low = found[0] + 1
                    else:
                        high = found[0] - 1
                    try:
                        yield level_of(found[4]), checked(*found[:4])
                    except IntegrityError:
                        continue
            except sqlite3.Error:
                continue
            low = high + 1  # all was read
            break
        if low < high:
            middle = (low + high) // 2
            gaps += [(low, middle), (middle + 1, high)]


# ------------------------------------------------------------------------------------------ writing


def _set_aside(root: Path, budget: Budget) -> None:
    """Move the damaged database away, if it is small; remove it otherwise."""
    damaged = root / NAME
    folder = root / QUARANTINE
    damaged.with_name(NAME + LOG_SUFFIX).unlink(missing_ok=True)
    if damaged.exists():
        if damaged.stat().st_size <= budget.cap // 16:
            folder.mkdir(exist_ok=True)
            damaged.replace(folder / NAME)
        else:
            damaged.unlink()
    for name in (RESTORING, RESTORING + LOG_SUFFIX):
        (root / name).unlink(missing_ok=True)
    point("spool.set-aside")


def _restore(root: Path, budget: Budget, worth: WorthPolicy) -> Repair:
    database = Database(root / RESTORING, budget)
    try:
        database.bound(budget)
        taken = folder_bytes(root) - folder_bytes(root / "outgoing")
        filling = _Filling(database, budget, budget.pages(taken), worth)
        for table, values in _saved(root / SAVED):
            if table == "event":
                shelf, level, identity, tally = (_plain(value) for value in values[:-1])
                filling.add(shelf, level, Row(identity, tally, bytes(values[-1])))
            else:
                filling.count(table, [_plain(value) for value in values])
        done = filling.end()
        database.empty_log()  # which doesn't go along when the file gets its name
    finally:
        database.close()
    return done


def _is_whole(path: Path) -> bool:
    """Whether a file is as `_save` wrote it, or empty."""
    decompressor = zstd.ZstdDecompressor()
    try:
        with path.open("rb") as stream:
            while data := stream.read(_FEED):
                decompressor.decompress(data)
            return (decompressor.eof and not decompressor.unused_data) or not stream.tell()
    except (zstd.ZstdError, EOFError):
        return False


def _saved(path: Path) -> Iterator[tuple[str, list[msgspec.Raw]]]:
    """What `_save` wrote, line by line; values as they are."""
    decompressor = zstd.ZstdDecompressor()
    read = decoder(list[msgspec.Raw])
    rest = b""
    with path.open("rb") as stream:
        while data := stream.read(_FEED):
            *lines, rest = (rest + decompressor.decompress(data)).split(b"\n")
            for line in lines:
                table, *values = read.decode(line)
                yield _plain(table), values


def _plain(value: msgspec.Raw) -> Any:  # noqa: ANN401 - a number, a text or nothing
    return decoder(object).decode(value)


class _Filling:
    """Fills a new database, in transactions as long as the log may be."""

    def __init__(self, database: Database, budget: Budget, pages: int, worth: WorthPolicy) -> None:
        self._database = database
        self._budget = budget
        self._pages = pages
        self._tallies = Tallies()
        self._rater = Rater(self._tallies)
        self._rater.policy = worth
        self._parts = Parts()
        self._counted = self._full = False
        self._counts: list[tuple[str, list[Any]]] = []
        self._rows: dict[tuple[int, int], list[Row]] = {}
        self._frames = 0.0
        self._restored: Counter[int] = Counter()

    def count(self, table: str, values: list[Any]) -> None:
        """A row of one of the tables of counts."""
        self._counted = True
        self._counts.append((table, values))
        if table == "meta" and values[0] == "next":  # names that were given aren't given again
            self._parts.next_id = max(self._parts.next_id, values[1])
        self._add_frames(0.25)

    def add(self, shelf: int, level: int, row: Row) -> None:
        """A row of a shelf."""
        self._rows.setdefault((shelf, level), []).append(row)
        self._add_frames(1 + row_bytes(len(row.event), self._budget.page) / self._budget.page)

    def end(self) -> Repair:
        """Settle the counts: what was not restored is dropped."""
        self._flush()
        lost = None
        with self._database.change() as sql:
            if self._counted:
                lost = self._settle(sql)
            else:
                sql.execute("REPLACE INTO meta VALUES ('spool', ?)", (self._tallies.spool,))
            self._parts.next_id += 1
            self._parts.save(sql)
        return Repair(saved=self._restored.total(), lost=lost)

    def _add_frames(self, frames: float) -> None:
        self._frames += frames
        if self._frames > self._budget.change_frames / 4:
            self._flush()

    def _flush(self) -> None:
        database = self._database
        if database.pages - database.free_pages + self._frames * 2 > self._pages:
            self._rows.clear()  # no room: what comes now is worth least
        if self._counts or self._rows:
            with database.change() as sql:
                for table, values in self._counts:
                    marks = ", ".join("?" * len(values))
                    sql.execute(f"REPLACE INTO {table} VALUES ({marks})", values)  # noqa: S608
                for (shelf, level), rows in self._rows.items():
                    self._insert(sql, Shelf(shelf), level, rows)
        self._counts.clear()
        self._rows.clear()
        self._frames = 0.0

    def _insert(self, sql: sqlite3.Connection, shelf: Shelf, level: int, rows: list[Row]) -> None:
        # A page that lies in two places of a damaged table is read twice.
        once = {row.id: row for row in rows if not self._there(sql, shelf, level, row.id)}
        if not (rows := list(once.values())):
            return
        if not self._counted and shelf is not Shelf.ACCOUNTS:
            rows = [row._replace(tally=self._recount(sql, row)) for row in rows]
        self._parts.add(sql, shelf, level, [row.stored for row in rows])
        self._parts.next_id = max(self._parts.next_id, *(row.id for row in rows))
        self._restored.update(row.tally for row in rows)

    def _there(self, sql: sqlite3.Connection, shelf: Shelf, level: int, identity: int) -> bool:
        if not self._parts.has(shelf, level):
            return False
        asked = f"SELECT 1 FROM {table_of(shelf, level)} WHERE id=?"  # noqa: S608 - ours
        return sql.execute(asked, (identity,)).fetchone() is not None

    def _recount(self, sql: sqlite3.Connection, row: Row) -> int:
        """The tally of an event whose own tally was lost, with the event in it."""
        key = self._rater.entry(read_event(row.event)).key
        tally = self._tallies.identity(sql, key, self._budget)
        self._tallies.add(sql, [(1, 0, 0, tally)])
        sql.execute("UPDATE day SET changed=2 WHERE day=?", (key.day,))
        return tally

    def _settle(self, sql: sqlite3.Connection) -> int:
        leaving = dict(
            sql.execute("SELECT tally, sum(events) FROM leaving_tally GROUP BY tally").fetchall()
        )
        missing: Counter[int] = Counter()
        for tally, waited in sql.execute("SELECT id, seen - dropped - sent FROM tally"):
            missing[tally] = waited - leaving.get(tally, 0) - self._restored[tally]
        more = {tally: -count for tally, count in missing.items() if count < 0}
        self._tallies.add(sql, [(count, 0, 0, tally) for tally, count in more.items()])
        self._tallies.load(sql)
        gone = {tally: count for tally, count in missing.items() if count > 0}
        self._tallies.drop(sql, gone)
        lost = sum(gone.values())
        sql.execute(
            "INSERT INTO shelf VALUES (?, 0, ?) ON CONFLICT (name)"
            " DO UPDATE SET dropped = dropped + excluded.dropped",
            (DAMAGED, lost),
        )
        return lost
