"""Fixtures of the gateway's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet_local.state import DirectoryStateStore


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Folder of a fleet; it does not exist yet."""
    return tmp_path / "fleet"


@pytest.fixture
def store(home: Path) -> DirectoryStateStore:
    """The fleet's state store."""
    return DirectoryStateStore(home)
