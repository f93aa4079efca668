"""Entry points of what is installed, read once: a reading opens a file of every distribution."""

from __future__ import annotations

import importlib.metadata
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


def entry_points(group: str) -> EntryPoints:
    """Entry points of a group, by ``sys.path`` as it is: what is installed meanwhile is there."""
    return _read(group, tuple((folder, _changed_ns(folder)) for folder in sys.path))


@lru_cache(maxsize=16)
def _read(group: str, _folders: tuple[tuple[str, int | None], ...]) -> EntryPoints:
    return importlib.metadata.entry_points(group=group)


def _changed_ns(folder: str) -> int | None:
    """When something was last put into a folder, or taken from it; None where there is none."""
    try:
        return Path(folder).stat().st_mtime_ns
    except OSError:
        return None
