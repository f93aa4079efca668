"""Whether releases fit into memory beside each other: an estimate from file sizes, pure."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Footprint = Mapping[str, int]
    """Bytes in memory by what the memory is for: a variant that two releases share counts once."""


class Fit(enum.Enum):
    """How a release fits into memory."""

    BESIDE = "beside everything that is loaded"
    WITHOUT_KEPT = "beside the one that runs, if the one that could come back goes"
    ALONE = "only alone"
    NEVER = "not at all"


def together(footprints: Iterable[Footprint]) -> int:
    """Bytes in memory of several releases."""
    union: dict[str, int] = {}
    for footprint in footprints:
        union.update(footprint)
    return sum(union.values())


def fit(new: Footprint, *, running: Footprint, kept: Footprint, max_bytes: int | None) -> Fit:
    """How a release fits beside those that are loaded."""
    if max_bytes is None or together((new, running, kept)) <= max_bytes:
        return Fit.BESIDE
    if together((new, running)) <= max_bytes:
        return Fit.WITHOUT_KEPT
    return Fit.ALONE if together((new,)) <= max_bytes else Fit.NEVER
