"""The mock of AWS: one loopback port that serves S3, SageMaker, CloudWatch Logs, IAM and STS.

moto answers most of it; `cloud` holds requests and answers to botocore's service models, mends what
moto does otherwise than AWS, and really runs training jobs. See ``mock_rules.md`` for each rule.
What the cloud holds lives in memory and is gone when it stops.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from edgefleet.errors import UnsupportedError
from edgefleet.plugins.provider import Role
from edgefleet.testing.mock import MockCloud
from edgefleet_aws.cloud.server import CloudServer
from edgefleet_aws.cloud.stage import Stage
from edgefleet_aws.settings import AwsSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet_aws.cloud.rules import Rules

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
TRAINING_ROLE = f"arn:aws:iam::{ACCOUNT}:role/edgefleet-training"
TRAINING_IMAGE = "mock/python:3"  # never pulled: scripts run with this Python


class AwsMock(MockCloud):
    """AWS on this machine, without devices.

    Attributes:
        bucket: the bucket that is there when it has started.
    """

    name: ClassVar[str] = "aws"
    roles: ClassVar[frozenset[Role]] = frozenset({Role.REGISTRY, Role.STATE, Role.TRAINER})

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.bucket = f"edgefleet-mock-{secrets.token_hex(4)}"
        self._server = CloudServer()
        self._stage = Stage(self._server, state / "training", self.environment_at)

    @property
    def rules(self) -> Rules:
        """Faults to inject."""
        return self._server.rules

    def start(self) -> None:
        """Listen on loopback; no error when it does already."""
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "aws-config").write_text("[default]\n", encoding="utf-8")
        (self.state / "aws-credentials").write_text("[default]\n", encoding="utf-8")
        self._server.start()
        self._stage.open(self.bucket)

    def stop(self) -> None:
        """End training jobs and stop listening; nothing is left running."""
        self._stage.close()
        self._server.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What every AWS SDK and tool reads: address, throw-away keys, no other configuration."""
        return self.environment_at(self._server.url)

    def environment_at(self, url: str) -> dict[str, str]:
        """The same for an address."""
        return {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "mock",
            "AWS_SECRET_ACCESS_KEY": "mock",
            "AWS_SESSION_TOKEN": "mock",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_PROFILE": "default",
            "AWS_CONFIG_FILE": str((self.state / "aws-config").absolute()),
            "AWS_SHARED_CREDENTIALS_FILE": str((self.state / "aws-credentials").absolute()),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @property
    def settings(self) -> dict[str, Any]:
        """The bucket, what training needs, and a mirror for devices that don't speak S3."""
        return {
            "bucket": self.bucket,
            "region": REGION,
            "mirrors": [
                f"{self._server.url}/{self.bucket}/{AwsSettings.model_fields['prefix'].default}"
            ],
            "training_role": TRAINING_ROLE,
            "training_image": TRAINING_IMAGE,
            "cache": str((self.state / "cache").absolute()),
        }

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Refused: this mock holds no devices."""
        _no_devices()

    def kill_device(self, name: str) -> None:
        """Refused: this mock holds no devices."""
        _no_devices()

    def start_device(self, name: str) -> None:
        """Refused: this mock holds no devices."""
        _no_devices()

    def seen(self) -> Iterator[str]:
        """Every request: when, service and operation, path, status."""
        yield from self._server.seen()


def _no_devices() -> NoReturn:
    raise UnsupportedError(
        "the mock of AWS holds no devices",
        cure="name a mock that does beside it: edgefleet mock aws,local",
        provider="aws",
    )
