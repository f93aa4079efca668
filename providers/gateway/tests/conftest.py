"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet_gateway.server.running import Serving
from edgefleet_local.state import DirectoryStateStore
from providers.gateway.tests.server_rig import Client, Fleet


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Folder of a fleet; it does not exist yet."""
    return tmp_path / "fleet"


@pytest.fixture
def store(home: Path) -> DirectoryStateStore:
    """The fleet's state store."""
    return DirectoryStateStore(home)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A fleet in a folder; gateways are started before it."""
    return Fleet(tmp_path)


@pytest.fixture
def gateway(fleet: Fleet) -> Iterator[Serving]:
    """A gateway before it, on loopback."""
    with fleet.gateway() as serving:
        yield serving


@pytest.fixture
def device(fleet: Fleet, gateway: Serving) -> Client:
    """A device of the fleet."""
    return fleet.device(gateway, "cam-1")
