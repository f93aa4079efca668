"""A line for each operation that changed the fleet, whichever process did it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from edgefleet_local.files import make_folder

MAX_BYTES = 8 << 20  # of the journal; then it becomes journal.1.log and a new one begins


class Journal:
    """The journal of a fleet's folder.

    Args:
        home: the fleet's folder.
    """

    def __init__(self, home: Path) -> None:
        self._path = home / "journal.log"

    def write(self, operation: str, *what: object) -> None:
        """Append one line. Never fails what it tells of: without room there is no line."""
        words = " ".join(str(word) for word in what).replace("\n", " ")
        line = f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {operation} {words}\n"
        try:
            make_folder(self._path.parent)
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, line.encode())
                full = os.fstat(handle).st_size > MAX_BYTES
            finally:
                os.close(handle)
            if full:
                self._path.replace(self._path.with_name("journal.1.log"))
        except OSError:
            return

    def lines(self) -> list[str]:
        """All lines kept, oldest first."""
        found: list[str] = []
        for path in (self._path.with_name("journal.1.log"), self._path):
            try:
                found += path.read_text(encoding="utf-8", errors="replace").splitlines()
            except FileNotFoundError:
                continue
        return found
