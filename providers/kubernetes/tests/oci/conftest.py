"""Fixtures of the registry's tests: nobody's credentials, registries that are stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgefleet.testing.cloud.oci import OciRegistry
from providers.kubernetes.tests.oci.rig import Operator


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    made = Operator(tmp_path / "operator")
    yield made
    made.close()


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Callable[..., OciRegistry]]:
    """Starts registries with the options of `OciRegistry`."""
    started: list[OciRegistry] = []

    def start(**options: object) -> OciRegistry:
        registry = OciRegistry(tmp_path / f"registry-{len(started)}", **options)  # type: ignore[arg-type]
        registry.start()
        started.append(registry)
        return registry

    yield start
    for registry in started:
        registry.stop()
