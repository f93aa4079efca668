"""The conformance kit over the Google Cloud provider on its mock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.protocol.digest import blob_path
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.registry import RegistryConformance
from edgefleet.testing.kit.state_service import StateServiceConformance
from edgefleet_gcp.blobs import GcsBlobStore
from edgefleet_gcp.registry import GcsRegistry
from edgefleet_gcp.state import GcsStateStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.mock import GcpMock
    from edgefleet_gcp.settings import GcpSettings

CALLS = {"replace": "storage.InsertObject", "delete": "storage.DeleteObject"}


class TestState(StateServiceConformance):
    @pytest.fixture
    def state(self, clients: Clients, settings: GcpSettings) -> GcsStateStore:
        return GcsStateStore(clients, settings)

    @pytest.fixture
    def lose_answer(self, cloud: GcpMock) -> Callable[[str], None]:
        return lambda what: cloud.rules.add(Rule(CALLS[what], cut_answer_at=0))

    @pytest.fixture
    def throttle(self, cloud: GcpMock) -> Callable[[str], None]:
        fault = Refused(429, "rateLimitExceeded", "Slowly.")
        return lambda what: cloud.rules.add(Rule(CALLS[what], fault=fault))


class TestBlobs(BlobStoreConformance):
    @pytest.fixture
    def blobs(self, clients: Clients, settings: GcpSettings) -> GcsBlobStore:
        return GcsBlobStore(clients, settings)

    @pytest.fixture
    def fetch(self, clients: Clients, settings: GcpSettings) -> Callable[[str], bytes]:
        def fetch(address: str) -> bytes:
            name = address.removeprefix(f"gs://{settings.bucket}/")
            data: bytes = clients.bucket.blob(name).download_as_bytes()
            return data

        return fetch


class TestRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, clients: Clients, settings: GcpSettings) -> GcsRegistry:
        return GcsRegistry(clients, settings)

    @pytest.fixture
    def corrupt_blob(self, clients: Clients, settings: GcpSettings) -> Callable[[str], None]:
        def corrupt(digest: str) -> None:
            blob = clients.bucket.blob(f"{settings.prefix}/{blob_path(digest)}")
            data = blob.download_as_bytes()
            blob.upload_from_string(bytes([data[0] ^ 1]) + data[1:])

        return corrupt
