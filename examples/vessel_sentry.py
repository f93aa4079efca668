"""Looks at the size of a folder all the time, from a thread of its own.

What a cap promises holds at every moment, so it isn't enough to look when a turn is over: SQLite
lets other threads run while it writes, and that is when this one looks.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

EVERY_S = 0.002


class Sentry:
    """The most that a folder ever held while this was entered.

    Args:
        folder: it exists.

    Attributes:
        fullest_bytes: the most that was seen.
        looks: how often it was looked at.
    """

    def __init__(self, folder: Path) -> None:
        self.fullest_bytes = self.looks = 0
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sentry", daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_S):
            self.fullest_bytes = max(self.fullest_bytes, folder_bytes(self._folder))
            self.looks += 1


def folder_bytes(folder: Path) -> int:
    """Length of all files below a folder."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # gone meanwhile
                if entry.is_dir(follow_symlinks=False):
                    total += folder_bytes(Path(entry.path))
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


def memory_bytes() -> int:
    """What this process has in memory now."""
    statm = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE")
