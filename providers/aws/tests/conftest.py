"""Fixtures of the AWS provider's tests: one mock cloud, and a fleet of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.strictness import all_held_to_model, hold_to_model
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.permissions import actions_of
from edgefleet_aws.settings import AwsSettings

_numbers = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def clients_held_to_model() -> Iterator[None]:
    """Every request and answer of every boto3 client in these tests is held to botocore's model."""
    with all_held_to_model():
        yield


@pytest.fixture(scope="session")
def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AwsMock]:
    """The mock cloud, running."""
    cloud = AwsMock(tmp_path_factory.mktemp("aws"))
    cloud.start()
    yield cloud
    cloud.stop()


@pytest.fixture
def cloud(running_cloud: AwsMock, monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsMock]:
    """The mock cloud, with its environment in place and no faults injected."""
    for key, value in running_cloud.environment.items():
        monkeypatch.setenv(key, value)
    # boto3's own session remembers the configuration that it read first, in whichever environment.
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield running_cloud
    running_cloud.rules.clear()


@pytest.fixture
def make_settings(cloud: AwsMock, tmp_path: Path) -> Callable[..., AwsSettings]:
    """Makes settings of a fleet that no other test has."""

    def make(**changes: Any) -> AwsSettings:
        prefix = f"t{next(_numbers)}"
        mirrors = [f"{cloud.environment['AWS_ENDPOINT_URL']}/{cloud.bucket}/{prefix}"]
        fresh = {"prefix": prefix, "mirrors": mirrors, "cache": tmp_path / "cache"}
        return AwsSettings(**{**cloud.settings, **fresh, **changes})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., AwsSettings]) -> AwsSettings:
    """Settings of a fleet that no other test has."""
    return make_settings()


@pytest.fixture
def make_clients() -> Iterator[Callable[[AwsSettings], Clients]]:
    """Makes clients whose every request and answer is held to botocore's model."""
    made: list[Clients] = []

    def make(settings: AwsSettings) -> Clients:
        made.append(Clients(settings, prepare=hold_to_model))
        return made[-1]

    yield make
    for clients in made:
        clients.close()


@pytest.fixture
def called(clients: Clients) -> Callable[[], set[str]]:
    """Gives the actions that the test's own clients have called."""
    actions: set[str] = set()

    def note(model: Any, **_: object) -> None:
        actions.update(actions_of(model.service_model.service_name, model.name))

    for service in ("sagemaker", "logs", "s3"):
        clients.get(service).meta.events.register("before-call", note)
    return lambda: actions


@pytest.fixture
def clients(make_clients: Callable[[AwsSettings], Clients], settings: AwsSettings) -> Clients:
    """Clients of the test's fleet, held to botocore's model."""
    return make_clients(settings)
