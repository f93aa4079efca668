"""Fixtures of the Azure provider's tests: one mock cloud, and a fleet of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet_azure.clients import Clients
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMock]:
    """The mock cloud, running."""
    cloud = AzureMock(tmp_path_factory.mktemp("azure"))
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def cloud(running_cloud: AzureMock, monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureMock]:
    """The mock cloud, with its environment in place and no faults injected."""
    for key, value in running_cloud.authority.alone(running_cloud.environment).items():
        monkeypatch.setenv(key, value)
    yield running_cloud
    running_cloud.rules.clear()


@pytest.fixture
def make_settings(cloud: AzureMock, tmp_path: Path) -> Callable[..., AzureSettings]:
    """Makes settings of a fleet that no other test has, and its containers."""

    def make(**changes: Any) -> AzureSettings:
        fresh = {"prefix": f"t{next(_numbers)}", "cache": tmp_path / "cache"}
        settings = AzureSettings(**{**cloud.settings, **fresh, **changes})
        cloud.add_fleet(settings.prefix)
        return settings

    return make


@pytest.fixture
def settings(make_settings: Callable[..., AzureSettings]) -> AzureSettings:
    """Settings of a fleet that no other test has."""
    return make_settings()


@pytest.fixture
def make_clients() -> Iterator[Callable[[AzureSettings], Clients]]:
    """Makes clients, and closes them."""
    made: list[Clients] = []

    def make(settings: AzureSettings) -> Clients:
        made.append(Clients(settings))
        return made[-1]

    yield make
    for clients in made:
        clients.close()


@pytest.fixture
def clients(make_clients: Callable[[AzureSettings], Clients], settings: AzureSettings) -> Clients:
    """Clients of the test's fleet."""
    return make_clients(settings)
