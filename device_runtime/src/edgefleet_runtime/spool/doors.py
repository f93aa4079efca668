"""What is turned away at the door of each shelf, and how many events had to go, ever.

Rules kept here:

- A door only rises, until there is room for everything again.
- What had to go is written in the transaction that drops it, or in the next one.
- No IO here but what a transaction is given for.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgefleet_runtime.spool.repair import DAMAGED
from edgefleet_runtime.spool.worth import BY_AGE, LEVELS, Shelf

if TYPE_CHECKING:
    import sqlite3


class Doors:
    """The doors of all shelves, and the counts of what was dropped.

    Attributes:
        levels: of each shelf, the one below which nothing is taken.
    """

    def __init__(self) -> None:
        self.levels = dict.fromkeys(Shelf, 0)
        self._old: Counter[str] = Counter()
        self._new: Counter[str] = Counter()

    def __getitem__(self, shelf: Shelf) -> int:
        return self.levels[shelf]

    @property
    def open(self) -> bool:
        """Whether everything is taken."""
        return not any(self.levels.values())

    @property
    def changed(self) -> bool:
        """Whether something was dropped that isn't written yet."""
        return self._new.total() > 0

    @property
    def dropped(self) -> dict[str, int]:
        """Events that had to go, ever, by shelf; and those that damage took."""
        drops = self._old + self._new
        return {name: drops[name] for name in (*(shelf.label for shelf in Shelf), DAMAGED)}

    def count(self, name: str, events: int = 1) -> None:
        """Count what had to go, by its shelf's label or `DAMAGED`."""
        self._new[name] += events

    def shut(self, shelf: Shelf, level: int) -> None:
        """Take nothing below a level from now on, and nothing at all on lower shelves."""
        self.levels[shelf] = max(self.levels[shelf], level)
        for lower in Shelf:
            if lower < shelf and lower not in BY_AGE:
                self.levels[lower] = LEVELS

    def reset(self) -> None:
        """Take everything."""
        self.levels = dict.fromkeys(Shelf, 0)

    def snapshot(self) -> Counter[str]:
        """The counts that wait to be written."""
        return self._new.copy()

    def restore(self, before: Counter[str]) -> None:
        """Go back to counts that `snapshot` gave."""
        self._new = before

    # ------------------------------------------------------------------------ within a transaction

    def load(self, sql: sqlite3.Connection) -> None:
        """Take over what the database says."""
        shelves = {shelf.label: shelf for shelf in Shelf}
        for name, door, dropped in sql.execute("SELECT name, door, dropped FROM shelf"):
            self._old[name] = dropped
            if name in shelves:
                self.levels[shelves[name]] = door

    def write(self, sql: sqlite3.Connection) -> None:
        """Write all of it; `written` follows the transaction."""
        doors = {shelf.label: level for shelf, level in self.levels.items()}
        sql.executemany(
            "REPLACE INTO shelf VALUES (?, ?, ?)",
            [(name, doors.get(name, 0), dropped) for name, dropped in self.dropped.items()],
        )

    def written(self) -> None:
        """The transaction is done."""
        self._old.update(self._new)
        self._new.clear()
