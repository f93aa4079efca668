from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_runtime.tests.channels.api_server import FakeApiServer


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApiServer]:
    """An API server that is up, unless a test has stopped it."""
    server = FakeApiServer(tmp_path / "cluster")
    server.start()
    yield server
    server.end()
