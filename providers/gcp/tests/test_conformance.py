"""The conformance kit over the Google Cloud provider on its mock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.protocol.digest import blob_path
from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.registry import RegistryConformance
from edgefleet.testing.kit.state import StateStoreConformance
from edgefleet_gcp.blobs import GcsBlobStore
from edgefleet_gcp.registry import GcsRegistry
from edgefleet_gcp.state import GcsStateStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.settings import GcpSettings


class TestState(StateStoreConformance):
    @pytest.fixture
    def state(self, clients: Clients, settings: GcpSettings) -> GcsStateStore:
        return GcsStateStore(clients, settings)


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
