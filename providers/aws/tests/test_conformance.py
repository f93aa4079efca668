"""The conformance kit over the AWS provider on its mock. No gaps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from edgefleet.protocol.digest import blob_path
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.blobs import BlobStoreConformance
from edgefleet.testing.kit.registry import RegistryConformance
from edgefleet.testing.kit.state_service import StateServiceConformance
from edgefleet.testing.kit.training_service import TrainingServiceConformance
from edgefleet_aws.blobs import S3BlobStore
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.registry import SageMakerRegistry
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.state import S3StateStore
from edgefleet_aws.trainer import SageMakerTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

S3_CALLS = {"replace": "s3.PutObject", "delete": "s3.DeleteObject"}


class TestState(StateServiceConformance):
    @pytest.fixture
    def state(self, clients: Clients, settings: AwsSettings) -> S3StateStore:
        return S3StateStore(clients, settings)

    @pytest.fixture
    def lose_answer(self, cloud: AwsMock) -> Callable[[str], None]:
        return lambda what: cloud.rules.add(Rule(S3_CALLS[what], cut_answer_at=0))

    @pytest.fixture
    def throttle(self, cloud: AwsMock) -> Callable[[str], None]:
        fault = Fault("SlowDown", "reduce your rate", 503)
        return lambda what: cloud.rules.add(Rule(S3_CALLS[what], fault=fault))


class TestBlobs(BlobStoreConformance):
    @pytest.fixture
    def blobs(self, clients: Clients, settings: AwsSettings) -> S3BlobStore:
        return S3BlobStore(clients, settings)

    @pytest.fixture
    def fetch(self, clients: Clients) -> Callable[[str], bytes]:
        def fetch(address: str) -> bytes:
            parts = urlsplit(address)
            if parts.scheme == "http":  # the mirror, as anyone reads it
                with urlopen(address) as stream:
                    mirrored: bytes = stream.read()
                return mirrored
            reply = clients.s3.get_object(Bucket=parts.netloc, Key=parts.path[1:])
            data: bytes = reply["Body"].read()
            return data

        return fetch


class TestRegistry(RegistryConformance):
    @pytest.fixture
    def registry(self, clients: Clients, settings: AwsSettings) -> SageMakerRegistry:
        return SageMakerRegistry(clients, settings)

    @pytest.fixture
    def corrupt_blob(self, clients: Clients, settings: AwsSettings) -> Callable[[str], None]:
        def corrupt(digest: str) -> None:
            place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{blob_path(digest)}"}
            size = clients.s3.head_object(**place)["ContentLength"]
            clients.s3.put_object(**place, Body=bytes(size))

        return corrupt


class TestTrainer(TrainingServiceConformance):
    @pytest.fixture
    def trainer(self, clients: Clients, settings: AwsSettings, tmp_path: Path) -> SageMakerTrainer:
        return SageMakerTrainer(clients, settings, base=tmp_path)

    @pytest.fixture
    def other(
        self, clients: Clients, make_settings: Callable[..., AwsSettings], tmp_path: Path
    ) -> SageMakerTrainer:
        return SageMakerTrainer(clients, make_settings(), base=tmp_path)

    @pytest.fixture
    def missing_data(self, settings: AwsSettings) -> str:
        return f"s3://{settings.bucket}/nothing/"

    @pytest.fixture
    def lose_answer(self, cloud: AwsMock) -> Callable[[], None]:
        return lambda: cloud.rules.add(Rule("sagemaker.CreateTrainingJob", cut_answer_at=0))
