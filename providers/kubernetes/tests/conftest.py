"""Fixtures of the Kubernetes provider's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.interfaces.state import StateStore
from edgefleet_local.state import DirectoryStateStore


@pytest.fixture(autouse=True)
def _of_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's own logins are nobody's business here."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def state(tmp_path: Path) -> Callable[[], StateStore]:
    """Gives a state store of this test's own."""
    store = DirectoryStateStore(tmp_path / "state")
    return lambda: store
