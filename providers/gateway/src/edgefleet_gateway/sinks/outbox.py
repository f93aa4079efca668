"""Events that wait for one sink, on the gateway's disk.

Rules kept here:

- What was put in is on the disk when that returns, and is there until the sink has it: a gateway
  that is killed goes on where it was. So a sink may get an event twice, and never not at all.
- Bytes are bounded: the oldest events go, and are counted.
- An event that waits already isn't put in again; devices repeat what they weren't told about.
- A file that is damaged is set aside, and another begun: it must not keep a gateway from starting.
- What a sink will never take is set aside with its reason, as many as `MAX_ASIDE`, for whoever
  looks what was wrong with it.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import StorageFullError
from edgefleet_gateway.sinks.base import Waiting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from edgefleet.protocol.event import Event

_log = logging.getLogger(__name__)

MAX_ASIDE = 1000  # events that are set aside; older ones go
_OVERHEAD = 200  # bytes of a row beside the event
_SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    size INTEGER NOT NULL,
    UNIQUE (device, id)
) STRICT;
CREATE TABLE IF NOT EXISTS aside (
    number INTEGER PRIMARY KEY,
    device TEXT NOT NULL,
    kind TEXT NOT NULL,
    data BLOB NOT NULL,
    reason TEXT NOT NULL
) STRICT;
"""


class Entry(NamedTuple):
    """An event on its way in: whose it is, the event, and it in JSON."""

    device: str
    event: Event
    data: bytes


class Outbox:
    """A file of waiting events. Safe to share between threads; one process uses it at a time.

    Args:
        path: the file; made when missing.
        max_bytes: of all waiting events.

    Raises:
        StorageFullError: the disk doesn't take it.
    """

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        with _disk():
            try:
                self._rows = _opened(path)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                _log.warning("%s is damaged, and set aside: %s", path, error)
                for end in ("", "-wal", "-shm"):
                    with suppress(FileNotFoundError):
                        path.with_name(path.name + end).replace(f"{path}.damaged{end}")
                self._rows = _opened(path)
            self.count, self.bytes = self._rows.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM waiting"
            ).fetchone()

    def put(self, entries: Iterable[Entry]) -> int:
        """Keep events; gives how many older ones had to go for them.

        Raises:
            StorageFullError: the disk doesn't take them; nothing of them is kept.
        """
        dropped = 0
        with self._lock, self._changing():
            for device, event, data in entries:
                size = len(data) + _OVERHEAD
                if size > self._max_bytes:
                    dropped += 1
                    continue
                put = self._rows.execute(
                    "INSERT OR IGNORE INTO waiting (device, id, kind, data, size) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (device, event.id, event.kind, data, size),
                )
                self.count += put.rowcount
                self.bytes += size * put.rowcount
                while self.bytes > self._max_bytes:
                    dropped += self._drop_oldest()
        return dropped

    def _drop_oldest(self) -> int:
        number, size = self._rows.execute(
            "SELECT number, size FROM waiting ORDER BY number LIMIT 1"
        ).fetchone()
        self._rows.execute("DELETE FROM waiting WHERE number = ?", (number,))
        self.count -= 1
        self.bytes -= size
        return 1

    def oldest(self, most: int) -> list[Waiting]:
        """The events that wait longest, in order."""
        with self._lock:
            found = self._rows.execute(
                "SELECT number, device, kind, data FROM waiting ORDER BY number LIMIT ?", (most,)
            ).fetchall()
        return [Waiting(*row) for row in found]

    def done(self, taken: Iterable[int], refused: Mapping[int, str]) -> None:
        """Forget events that a sink has, and set aside those that it will never take.

        Raises:
            StorageFullError: the disk doesn't take it; they wait as before.
        """
        with self._lock, self._changing():
            for number, reason in refused.items():
                self._rows.execute(
                    "INSERT INTO aside SELECT number, device, kind, data, ? FROM waiting "
                    "WHERE number = ?",
                    (reason[:500], number),
                )
            for number in (*taken, *refused):
                gone = self._rows.execute(
                    "DELETE FROM waiting WHERE number = ? RETURNING size", (number,)
                ).fetchall()
                self.count -= len(gone)
                self.bytes -= sum(size for (size,) in gone)
            self._rows.execute(
                "DELETE FROM aside WHERE number <= "
                "(SELECT number FROM aside ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (MAX_ASIDE,),
            )

    def aside(self) -> list[tuple[str, bytes, str]]:
        """Device, event and reason of what was set aside, the oldest first."""
        with self._lock:
            return self._rows.execute(
                "SELECT device, data, reason FROM aside ORDER BY number"
            ).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._rows.close()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """All changes inside, or none."""
        before = self.count, self.bytes
        with _disk():
            try:
                self._rows.execute("BEGIN IMMEDIATE")
                yield
                self._rows.execute("COMMIT")
            except BaseException:
                self.count, self.bytes = before
                if self._rows.in_transaction:
                    self._rows.execute("ROLLBACK")
                raise


def _opened(path: Path) -> sqlite3.Connection:
    path.touch(mode=0o600)
    rows = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        rows.execute("PRAGMA journal_mode = WAL")
        rows.execute("PRAGMA synchronous = FULL")
        rows.executescript(_SCHEMA)
        _check(rows)
    except BaseException:
        rows.close()
        raise
    return rows


def _check(rows: sqlite3.Connection) -> None:
    (found,) = rows.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageFullError(
            f"events for a sink can't be kept: {error}",
            cure="free space where the gateway's scratch folder is",
        ) from error
