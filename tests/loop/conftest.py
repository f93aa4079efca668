"""A world for each test, closed after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.loop.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class MakeWorld(Protocol):
    def __call__(self, **changes: Any) -> World: ...


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeWorld]:
    """Makes the world of the test; fields of the loop's file may be given."""
    monkeypatch.setenv("EDGEFLEET_ACTOR", "tester")
    monkeypatch.delenv("EDGEFLEET_PROFILE", raising=False)
    made: list[World] = []

    def make(**changes: Any) -> World:
        made.append(World(tmp_path, **changes))
        return made[-1]

    yield make
    for one in made:
        one.fleet.close()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """With 60 labelled samples of a broken feature."""
    made = make_world()
    made.sources.gather(60, at=made.now)
    return made
