"""What every test of the device runtime may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet_runtime.spool.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet_runtime.spool.budget import Budget


@pytest.fixture(autouse=True)
def _spools_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a cut of power in a test leaves open: from Python 3.13 on, sqlite3 tells."""
    opened: list[Database] = []
    init = Database.__init__

    def remembered(self: Database, path: Path, budget: Budget) -> None:
        init(self, path, budget)
        opened.append(self)

    monkeypatch.setattr(Database, "__init__", remembered)
    yield
    for database in opened:
        database.close()
