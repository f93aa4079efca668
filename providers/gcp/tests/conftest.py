"""Fixtures of the Google Cloud provider's tests: one mock cloud, a fleet of its own each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgefleet_gcp.clients import Clients
from edgefleet_gcp.mock import GcpMock
from edgefleet_gcp.permissions import DEVICE
from edgefleet_gcp.settings import GcpSettings
from edgefleet_runtime.store.google import GoogleTokens

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcpMock]:
    """The mock cloud, running."""
    cloud = GcpMock(tmp_path_factory.mktemp("gcp"))
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def cloud(running_cloud: GcpMock, monkeypatch: pytest.MonkeyPatch) -> Iterator[GcpMock]:
    """The mock cloud, with its environment in place and no faults injected."""
    alone = running_cloud.stage.authority.alone(running_cloud.environment)
    for key, value in alone.items():
        monkeypatch.setenv(key, value)
    yield running_cloud
    running_cloud.rules.clear()
    running_cloud.stage.storage.writes_per_second = None


@pytest.fixture
def make_settings(cloud: GcpMock, tmp_path: Path) -> Callable[..., GcpSettings]:
    """Makes settings of a fleet that no other test has, with a topic of its own."""

    def make(**changes: Any) -> GcpSettings:
        prefix = f"t{next(_numbers)}"
        names = {"topic": f"{prefix}-hot", "subscription": f"{prefix}-read"}
        cloud.add_topic(**names)
        fresh = {"prefix": prefix, "cache": tmp_path / "cache", **names}
        return GcpSettings(**{**cloud.settings, **fresh, **changes})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., GcpSettings]) -> GcpSettings:
    """Settings of a fleet that no other test has."""
    return make_settings()


@pytest.fixture
def make_clients() -> Iterator[Callable[[GcpSettings], Clients]]:
    """Makes clients, and closes them."""
    made: list[Clients] = []

    def make(settings: GcpSettings) -> Clients:
        made.append(Clients(settings))
        return made[-1]

    yield make
    for clients in made:
        clients.close()


@pytest.fixture
def clients(make_clients: Callable[[GcpSettings], Clients], settings: GcpSettings) -> Clients:
    """Clients of the test's fleet."""
    return make_clients(settings)


@pytest.fixture
def become(cloud: GcpMock, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this process act for an account of the mock cloud."""

    def act(name: str) -> None:
        for variable, value in cloud.environment_of(name).items():
            monkeypatch.setenv(variable, value)

    return act


@pytest.fixture
def device_tokens(
    cloud: GcpMock, settings: GcpSettings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], GoogleTokens]:
    """Makes tokens of a device that may what a device of the test's fleet may, and no more."""

    def tokens(name: str) -> GoogleTokens:
        account = f"{settings.prefix}-{name}"
        cloud.add_account(
            account,
            {"bucket": DEVICE["read"]},
            folder=f"{settings.prefix}/blobs",
        )
        cloud.add_account(
            account,
            {"bucket": DEVICE["write"]},
            folder=f"{settings.prefix}/devices/{name}",
        )
        cloud.add_account(account, {"topic": DEVICE["publish"]}, topic=settings.topic or "")
        key = cloud.environment_of(account)["GOOGLE_APPLICATION_CREDENTIALS"]
        return TokensOf(key, monkeypatch)

    return tokens


class TokensOf(GoogleTokens):
    """Tokens of an account by its key file, where this process has another one's environment."""

    def __init__(self, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._key, self._monkeypatch = key, monkeypatch

    def headers(self) -> Mapping[str, str]:
        with self._monkeypatch.context() as patch:
            patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", self._key)
            return super().headers()
