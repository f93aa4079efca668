"""The conformance kit over the Azure provider on its mock."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.state import StateStoreConformance
from edgefleet_azure.blobs import AzureBlobStore
from edgefleet_azure.state import BlobStateStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.mock import AzureMock
    from edgefleet_azure.settings import AzureSettings


class TestState(StateStoreConformance):
    @pytest.fixture
    def state(self, clients: Clients, settings: AzureSettings) -> BlobStateStore:
        return BlobStateStore(clients, settings)


class TestBlobs(BlobStoreConformance):
    @pytest.fixture
    def blobs(self, clients: Clients, settings: AzureSettings) -> AzureBlobStore:
        return AzureBlobStore(clients, settings)

    @pytest.fixture
    def fetch(self, cloud: AzureMock, settings: AzureSettings) -> Callable[[str], bytes]:
        """As a device does: by HTTPS, with a signature that may read and nothing else."""
        storage = cloud.stage.storage
        signature = generate_container_sas(
            storage.name,
            settings.container("models"),
            account_key=storage.keys[0],
            permission=ContainerSasPermissions(read=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        trusting = ssl.create_default_context(cafile=str(cloud.stage.authority.certificate))

        def fetch(address: str) -> bytes:
            with urlopen(f"{address}?{signature}", context=trusting) as stream:
                data: bytes = stream.read()
            return data

        return fetch
