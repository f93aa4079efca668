"""A mock cloud for each test that installs, and whoever works on it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.management import Management
from edgefleet_azure.install import Installation
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings

_numbers = itertools.count(1)
IMAGE = "plantimages.azurecr.io/edgefleet/runtime:1.0"


@pytest.fixture
def cloud(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AzureMock]:
    """The mock cloud, running, with its environment in place."""
    cloud = AzureMock(tmp_path_factory.mktemp("azure"), hubs=2)
    cloud.start()
    for key, value in cloud.authority.alone(cloud.environment).items():
        monkeypatch.setenv(key, value)
    yield cloud
    cloud.stop()


@pytest.fixture
def management(cloud: AzureMock) -> Management:
    return cloud.stage.management


@pytest.fixture
def make_settings(cloud: AzureMock, tmp_path: Path) -> Callable[..., AzureSettings]:
    """Makes settings of a fleet that no other test has."""

    def make(**changes: Any) -> AzureSettings:
        fresh = {
            "prefix": f"t{next(_numbers)}",
            "runtime_image": IMAGE,
            "cache": tmp_path / "cache",
            "max_attempts": 2,
        }
        return AzureSettings(**{**cloud.settings, **fresh, **changes})

    return make


@pytest.fixture
def make_installation(
    make_clients: Callable[[AzureSettings], Clients],
) -> Callable[[AzureSettings], Installation]:
    return lambda settings: Installation(make_clients(settings), settings)


@pytest.fixture
def sent(cloud: AzureMock) -> Callable[[], list[str]]:
    """Gives the calls so far that change something: operation and status, oldest first."""

    def changing() -> list[str]:
        calls = [line.split()[1:] for line in cloud.seen()]
        reading = ("Get", "List", "WhatIf", "Query", "_Get")
        return [
            call[0]
            for call in calls
            if not any(word in call[0].partition(".")[2] for word in reading)
        ]

    return changing
