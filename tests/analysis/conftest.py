"""A local fleet in a folder of its own, and the field of devices that it reads from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import edgefleet
from tests.analysis.field import Field

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.fleet import Fleet


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nobody"))
    with edgefleet.connect() as opened:
        yield opened


@pytest.fixture
def field(tmp_path: Path, fleet: Fleet) -> Field:
    return Field(tmp_path / ".edgefleet" / "fleet")
