"""Fixtures of the local provider's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Folder of a fleet; it does not exist yet."""
    return tmp_path / "a root with ünïcode" / "fleet"
