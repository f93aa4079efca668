"""Fixtures of the tests of the mock's parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.azure.tests.cloud.edge_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An IoT Hub, storage, and a site for devices."""
    bench = Bench(tmp_path)
    yield bench
    bench.stop()
