"""Fixtures of the Kubernetes provider's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.interfaces.state import StateStore
from edgefleet_local.state import DirectoryStateStore


@pytest.fixture
def state(tmp_path: Path) -> Callable[[], StateStore]:
    """Gives a state store of this test's own."""
    store = DirectoryStateStore(tmp_path / "state")
    return lambda: store
