"""What SQLite's errors mean here: one table. The operating system's are mapped by the SDK itself.

Codes as in https://www.sqlite.org/rescode.html.
"""

from __future__ import annotations

import sqlite3

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    EdgeFleetError,
    IntegrityError,
    StorageFullError,
    UnavailableError,
)

_MEANING: dict[int, tuple[type[EdgeFleetError], str]] = {
    sqlite3.SQLITE_BUSY: (UnavailableError, "repeat the call when fewer operators are at work"),
    sqlite3.SQLITE_FULL: (StorageFullError, "free space on the share and repeat the call"),
    sqlite3.SQLITE_READONLY: (AccessDeniedError, "mount the share writable for operators"),
    sqlite3.SQLITE_CANTOPEN: (
        ConfigurationError,
        "check that `root` is where the share is mounted",
    ),
    sqlite3.SQLITE_IOERR: (UnavailableError, "check that the share is still mounted"),
    sqlite3.SQLITE_NOTADB: (IntegrityError, "restore fleet.db: something else was written over it"),
    sqlite3.SQLITE_CORRUPT: (IntegrityError, "restore fleet.db from a copy"),
}


def translate(error: Exception) -> EdgeFleetError | None:
    """The error of ours that an SQLite error means; None for others."""
    code = getattr(error, "sqlite_errorcode", None)
    if not isinstance(error, sqlite3.Error) or code is None or code & 0xFF not in _MEANING:
        return None
    kind, cure = _MEANING[code & 0xFF]
    return kind(f"fleet.db: {error}", cure=cure)
