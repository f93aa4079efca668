"""The one SQLite file that operators share: documents, devices, and who may write next."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE_S = 30.0  # seconds to wait for whoever writes now

_TABLES = """
CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, data BLOB NOT NULL, tag TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS devices
    (name TEXT PRIMARY KEY, "group" TEXT NOT NULL, labels TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS journal (id INTEGER PRIMARY KEY, line TEXT NOT NULL);
"""


class Database:
    """Connections to it, one a use: cheap, and good for any number of threads and processes.

    Args:
        home: the fleet's folder.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / "fleet.db"

    @contextmanager
    def transaction(self, line: str) -> Iterator[sqlite3.Connection]:
        """One writer at a time: the block and its journal line happen whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            with connection:
                connection.execute("INSERT INTO journal (line) VALUES (?)", (line,))
                yield connection

    def rows(self, query: str, *values: str) -> list[tuple[str, ...]]:
        """What a query gives; nothing before the first write."""
        if not self._path.exists():
            return []
        with closing(self._connect()) as connection:
            return connection.execute(query, values).fetchall()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=PATIENCE_S, isolation_level=None)
        connection.executescript(_TABLES)  # whoever comes first makes them
        return connection
