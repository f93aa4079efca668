"""The spool's database file: opened so that a commit is durable and nothing outgrows its share.

Rules kept here:

- A commit returns when it outlives a power cut (write-ahead log, ``synchronous=FULL``).
- One process at a time, so there is no shared-memory file beside the log.
- A file that isn't ours, or not readable, is told apart from a disk that has no room.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgefleet.errors import IntegrityError
from edgefleet_runtime.faults import point

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from edgefleet_runtime.spool.budget import Budget

NAME = "spool.db"
LOG_SUFFIX = "-wal"
APPLICATION = 0x45466C53  # in the file's header: whose file it is
FORMAT = 1
CACHE_KIB = 2048
_BUSY_S = 1.0  # another process has it: only for as long as it takes to end
_STATEMENTS = 512  # an INSERT for each part
_SCHEMA = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE shelf(name TEXT PRIMARY KEY, door INTEGER NOT NULL, dropped INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE part(
    shelf INTEGER, level INTEGER, events INTEGER NOT NULL, bytes INTEGER NOT NULL,
    upto INTEGER NOT NULL, PRIMARY KEY (shelf, level)) WITHOUT ROWID;
CREATE TABLE day(
    day INTEGER PRIMARY KEY, spool TEXT NOT NULL, number INTEGER NOT NULL,
    changed INTEGER NOT NULL);
CREATE TABLE tally(
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, model TEXT NOT NULL, top INTEGER, band INTEGER,
    seen INTEGER NOT NULL, dropped INTEGER NOT NULL, sent INTEGER NOT NULL);
CREATE TABLE leaving(name TEXT PRIMARY KEY, file TEXT NOT NULL, events INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE leaving_tally(
    name TEXT, tally INTEGER, events INTEGER NOT NULL, PRIMARY KEY (name, tally)) WITHOUT ROWID;
"""
# What holds for every row that was written by us: SQLite itself lets any type be read anywhere.
_SOUND = {
    "meta": "typeof(value) = CASE key WHEN 'spool' THEN 'text' ELSE 'integer' END",
    "shelf": "typeof(door) || typeof(dropped) = 'integerinteger'",
    "day": "typeof(spool) || typeof(number) || typeof(changed) = 'textintegerinteger'",
    "tally": "typeof(kind) || typeof(model) = 'texttext' AND min(seen, dropped, sent) >= 0"
    " AND typeof(seen) || typeof(dropped) || typeof(sent) = 'integerintegerinteger'"
    " AND seen >= dropped + sent AND typeof(top) IN ('integer', 'null')"
    " AND (band IS NULL OR typeof(band) = 'integer' AND band BETWEEN 0 AND 9)",
    "leaving": "typeof(file) || typeof(events) = 'textinteger'",
    "leaving_tally": "typeof(events) = 'integer'",
    "part": "typeof(events) || typeof(bytes) || typeof(upto) = 'integerintegerinteger'",
}
COUNTS = tuple(table for table in _SOUND if table != "part")
"""Tables of what the events themselves don't tell."""
# Beyond these, an error tells of a disk that is full or fails, not of what is on it. No statement
# of ours breaks a constraint, unless a table gives the same row twice.
_DAMAGE = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
}
_DAMAGE_WHOLE = {sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ}


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file can't be read as what it should be."""
    if isinstance(error, IntegrityError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF in _DAMAGE or code in _DAMAGE_WHOLE)


def text_of(data: bytes) -> str:
    """A text as it was read; for `sqlite3.Connection.text_factory`.

    Raises:
        IntegrityError: it is none, which SQLite doesn't look at.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise IntegrityError("a text of the spool is damaged") from error


def check_counts(sql: sqlite3.Connection, tables: Iterable[str] = _SOUND) -> None:
    """Look at all that was counted.

    Raises:
        IntegrityError: a value can't be what was written.
        sqlite3.Error: it can't be read.
    """
    for table in tables:
        found = sql.execute(
            f"SELECT count(*) FROM {table} WHERE ({_SOUND[table]}) IS NOT TRUE"  # noqa: S608 - ours
        ).fetchone()
        if found[0]:
            msg = f"{found[0]} rows of the spool's table {table} are damaged"
            raise IntegrityError(msg, cure="what can be read is saved by itself")


class Database:
    """The open file.

    Args:
        path: made when missing.
        budget: its page size counts for a new file only.

    Raises:
        IntegrityError: the file is a database, but not ours.
        sqlite3.Error: it can't be opened; `is_damage` tells why.
    """

    def __init__(self, path: Path, budget: Budget) -> None:
        self.path = path
        self.log_path = path.with_name(path.name + LOG_SUFFIX)
        self._sql = sqlite3.connect(
            path,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_STATEMENTS,
        )
        self._sql.text_factory = text_of
        try:
            self._prepare(budget)
        except BaseException:
            self._sql.close()
            raise

    def _prepare(self, budget: Budget) -> None:
        run = self._sql.execute
        for setting in (
            "locking_mode=EXCLUSIVE",  # before anything is read, or there would be a file more
            f"page_size={budget.page}",
            "auto_vacuum=INCREMENTAL",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"cache_size=-{CACHE_KIB}",
            "temp_store=MEMORY",
            "mmap_size=0",
            "secure_delete=OFF",
            "cell_size_check=ON",
            "trusted_schema=OFF",
        ):
            run(f"PRAGMA {setting}").fetchall()
        self.page: int = self._pragma("page_size")
        if self._pragma("schema_version") == 0:
            self._sql.executescript(
                f"BEGIN;{_SCHEMA}PRAGMA application_id={APPLICATION};"
                f"PRAGMA user_version={FORMAT};COMMIT;"
            )
        found = (self._pragma("application_id"), self._pragma("user_version"))
        if found != (APPLICATION, FORMAT):
            msg = f"{self.path} is a database of something else"
            raise IntegrityError(msg, cure="give the spool a folder of its own")

    def bound(self, budget: Budget) -> None:
        """Keep the log within a budget from now on."""
        self._sql.execute(f"PRAGMA wal_autocheckpoint={budget.checkpoint_frames}").fetchall()
        self._sql.execute(f"PRAGMA journal_size_limit={budget.log_bytes}").fetchall()
        if self.log_bytes > budget.log_bytes:
            self.empty_log()

    def limit(self, pages: int) -> None:
        """Let the file have so many pages, or as many as it has now if these are more."""
        self._sql.execute(f"PRAGMA max_page_count={max(1, pages)}").fetchall()

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """Everything done within happens as a whole, and outlives a power cut, or not at all."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield self._sql
            point("spool.changing")
            self._sql.execute("COMMIT")
        except BaseException:
            if self._sql.in_transaction:  # some errors end it by themselves
                self._sql.execute("ROLLBACK")
            raise
        point("spool.changed")

    @property
    def read(self) -> sqlite3.Connection:
        """For statements that change nothing."""
        return self._sql

    @property
    def pages(self) -> int:
        """Length of the database in pages, once the log is in it."""
        return self._pragma("page_count")

    @property
    def free_pages(self) -> int:
        """Pages of them that hold nothing."""
        return self._pragma("freelist_count")

    @property
    def log_bytes(self) -> int:
        """Length of the log's file."""
        try:
            return self.log_path.stat().st_size
        except FileNotFoundError:
            return 0

    def give_back(self, pages: int) -> None:
        """Make the file so many pages shorter, of those that hold nothing."""
        try:
            # A script: `execute` takes the first page for the end of a statement without columns.
            self._sql.executescript(f"BEGIN IMMEDIATE; PRAGMA incremental_vacuum({pages}); COMMIT;")
        except BaseException:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            raise

    def empty_log(self) -> None:
        """Move what the log holds into the database, and make the log's file empty."""
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close it; the log goes, as far as the disk lets it."""
        self._sql.close()

    def _pragma(self, name: str) -> int:
        value: int = self._sql.execute(f"PRAGMA {name}").fetchone()[0]
        return value
