"""The conformance kit over Azure ML on the mock. No gaps."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.protocol.digest import blob_path
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.registry import RegistryConformance
from edgefleet.testing.kit.training_service import TrainingServiceConformance
from edgefleet_azure.clients import Clients
from edgefleet_azure.datasets import CONTAINER
from edgefleet_azure.mock import ML_REGISTRY, AzureMock
from edgefleet_azure.registry import AzureMLRegistry
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.trainer import AzureMLTrainer

if TYPE_CHECKING:
    from collections.abc import Callable


class TestRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, clients: Clients, settings: AzureSettings) -> AzureMLRegistry:
        return AzureMLRegistry(clients, settings)

    @pytest.fixture
    def corrupt_blob(self, clients: Clients) -> Callable[[str], None]:
        def corrupt(digest: str) -> None:
            blob = clients.container("models").get_blob_client(blob_path(digest))
            size = blob.get_blob_properties().size
            blob.upload_blob(io.BytesIO(bytes(size)), overwrite=True)

        return corrupt


class TestSharedRegistry(TestRegistry):
    @pytest.fixture
    def settings(self, make_settings: Callable[..., AzureSettings]) -> AzureSettings:
        return make_settings(ml_registry=ML_REGISTRY, workspace=None)


class TestTrainer(TrainingServiceConformance):
    @pytest.fixture
    def trainer(self, clients: Clients, settings: AzureSettings, tmp_path: Path) -> AzureMLTrainer:
        return AzureMLTrainer(clients, settings, base=tmp_path)

    @pytest.fixture
    def other(
        self,
        make_clients: Callable[[AzureSettings], Clients],
        make_settings: Callable[..., AzureSettings],
        tmp_path: Path,
    ) -> AzureMLTrainer:
        others = make_settings()
        return AzureMLTrainer(make_clients(others), others, base=tmp_path)

    @pytest.fixture
    def missing_data(self, trainer: AzureMLTrainer) -> str:
        return trainer._workspace.address(CONTAINER, "nothing/")

    @pytest.fixture
    def lose_answer(self, cloud: AzureMock) -> Callable[[], None]:
        return lambda: cloud.rules.add(Rule("ml.PutJob", cut_answer_at=0))
