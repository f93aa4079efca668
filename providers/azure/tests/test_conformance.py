"""The conformance kit over the Azure provider on its mock."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.state_service import StateServiceConformance
from edgefleet_azure.blobs import AzureBlobStore
from edgefleet_azure.cloud.calls import throttled
from edgefleet_azure.state import BlobStateStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.mock import AzureMock
    from edgefleet_azure.settings import AzureSettings

BLOB_CALLS = {"replace": "blob.PutBlob", "delete": "blob.DeleteBlob"}


class TestState(StateServiceConformance):
    @pytest.fixture
    def state(self, clients: Clients, settings: AzureSettings) -> BlobStateStore:
        return BlobStateStore(clients, settings)

    @pytest.fixture
    def lose_answer(self, cloud: AzureMock) -> Callable[[str], None]:
        return lambda what: cloud.rules.add(Rule(BLOB_CALLS[what], cut_answer_at=0))

    @pytest.fixture
    def throttle(self, cloud: AzureMock) -> Callable[[str], None]:
        return lambda what: cloud.rules.add(Rule(BLOB_CALLS[what], fault=throttled(0)))


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
