"""The state store: compare-and-swap is one conditional statement of SQL."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError
from edgefleet.interfaces.state import StateStore, Stored
from edgefleet_template.database import Database
from edgefleet_template.errors import translate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class SqliteStateStore(StateStore):
    """Documents in a table.

    Args:
        home: the fleet's folder.
    """

    provider = "template"

    def __init__(self, home: Path) -> None:
        self._database = Database(home)

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _read(self, key: str) -> Stored | None:
        rows = self._database.rows("SELECT data, tag FROM documents WHERE key = ?", key)
        return Stored(data=bytes(rows[0][0]), tag=rows[0][1]) if rows else None  # type: ignore[arg-type]

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        tag = uuid.uuid4().hex
        with self._database.transaction(f"write {key}") as connection:
            if expect is None:
                done = connection.execute(
                    "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    (key, data, tag),
                )
            else:
                done = connection.execute(
                    "UPDATE documents SET data = ?, tag = ? WHERE key = ? AND tag = ?",
                    (data, tag, key, expect),
                )
            self._check(key, done.rowcount)
        return tag

    def _delete(self, key: str, expect: str) -> None:
        with self._database.transaction(f"delete {key}") as connection:
            done = connection.execute(
                "DELETE FROM documents WHERE key = ? AND tag = ?", (key, expect)
            )
            self._check(key, done.rowcount)

    def _keys(self, prefix: str) -> Iterator[str]:
        beyond = prefix[:-1] + "0"  # the character after the slash
        query = "SELECT key FROM documents WHERE key >= ? AND key < ? ORDER BY key"
        yield from (row[0] for row in self._database.rows(query, prefix, beyond))

    def _check(self, key: str, changed: int) -> None:
        if not changed:
            raise self._conflict(key, "was changed, made or deleted by somebody else")
