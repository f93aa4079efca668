"""The mock of AWS: one loopback port that serves S3, SageMaker, IoT Core, Greengrass and the rest.

moto answers most of it; `cloud` holds requests and answers to botocore's service models, mends what
moto does otherwise than AWS, and really runs training jobs and devices: each has a stand-in for one
of the two nuclei, which runs the real runtime. See ``mock_rules.md`` for each rule.
What the cloud holds lives in memory and is gone when it stops.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import sys
from contextlib import closing
from importlib import metadata
from typing import TYPE_CHECKING, Any, ClassVar

from edgefleet.plugins.provider import Role
from edgefleet.testing.mock import MockCloud
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.greengrass import Greengrass
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_aws.cloud.server import CloudServer
from edgefleet_aws.cloud.stacks import Stacks
from edgefleet_aws.cloud.stage import Stage
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.install import prepare_devices
from edgefleet_aws.names import Names
from edgefleet_aws.recipes import run_lifecycle, runtime_recipe
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.state import S3StateStore
from edgefleet_aws.template import template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet_aws.cloud.rules import Rules

REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
TRAINING_ROLE = f"arn:aws:iam::{ACCOUNT}:role/edgefleet-training"
TRAINING_IMAGE = "mock/python:3"  # never pulled: scripts run with this Python


class AwsMock(MockCloud):
    """AWS on this machine.

    Attributes:
        bucket: the bucket that is there when it has started.
        nuclei: kinds of the devices' nuclei, by turns.
    """

    name: ClassVar[str] = "aws"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.bucket = f"edgefleet-mock-{secrets.token_hex(4)}"
        self._server = CloudServer()
        self._stage = Stage(self._server, state / "training", self.environment_at)
        self.nuclei: tuple[Kind, ...] = (Kind.CLASSIC, Kind.LITE)
        self.greengrass = Greengrass(self._server, REGION, state / "devices", self._on_devices)
        self._installed: AwsSettings | None = None
        self._turn = itertools.count()

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
        """End training jobs and devices, and stop listening; nothing is left running."""
        self.remove_devices()
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

    def install(
        self, settings: AwsSettings | None = None, *, lifecycle: Mapping[str, Any] | None = None
    ) -> None:
        """Prepare a fleet's side of Greengrass, as ``edgefleet install`` does.

        Args:
            settings: of the fleet; None for the one of the generated profile.
            lifecycle: of the runtime's component; None runs the runtime with this Python.
        """
        settings = settings or AwsSettings(**self.settings)
        names = Names(settings)
        self.greengrass.devices.role_alias = names.devices
        Stacks(REGION).apply(template(settings))
        version = metadata.version("edgefleet-runtime")
        scripts = run_lifecycle(sys.executable) if lifecycle is None else dict(lifecycle)
        with closing(self._clients(settings)) as clients:
            prepare_devices(clients, settings, runtime_recipe(names, version, scripts))
        self._installed = settings

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Enrol a device; its nucleus starts at once, and the runtime when that has deployed it."""
        if self._installed is None:
            self.install()
        with closing(self._deployer()) as deployer:
            deployer.enroll(name, group=group, labels=labels)
        self.power_on(name, labels=labels)

    def power_on(self, name: str, *, labels: Mapping[str, str] | None = None) -> None:
        """Give an enrolled device a nucleus, and wait until that has done what is wanted of it.

        Args:
            name: the device's.
            labels: what its hardware is, in place of this machine's.
        """
        kind = self.nuclei[next(self._turn) % len(self.nuclei)]
        variables = {"EDGEFLEET_LABELS": json.dumps(labels)} if labels else {}
        self.greengrass.site.add(name, kind, variables)
        self.greengrass.site.settle(name)

    def kill_device(self, name: str) -> None:
        """Cut a device's power: nucleus and runtime are killed; its disk stays."""
        self.greengrass.site.power_off(name)

    def start_device(self, name: str) -> None:
        """Give a device its power back."""
        self.greengrass.site.power_on(name)

    def remove_devices(self) -> None:
        """Shut every device down, and forget devices, groups and deployments."""
        self._installed = None
        self.greengrass.stop()

    def _deployer(self) -> GreengrassDeployer:
        settings = self._installed or AwsSettings(**self.settings)
        store = S3StateStore(self._clients(settings), settings)
        return GreengrassDeployer(self._clients(settings), settings, state=lambda: store)

    def _clients(self, settings: AwsSettings) -> Clients:
        return _ClientsOf(self._stage, settings)

    def _on_devices(self) -> dict[str, str]:
        """What components find in their environment, beside what the nucleus tells them."""
        return {"PATH": os.environ.get("PATH", os.defpath), "AWS_ENDPOINT_URL": self._server.url}

    def seen(self) -> Iterator[str]:
        """Every request: when, service and operation, path, status."""
        yield from self._server.seen()


class _ClientsOf(Clients):
    """Clients of the mock itself, whatever the environment says."""

    def __init__(self, stage: Stage, settings: AwsSettings) -> None:
        super().__init__(settings)
        self._stage = stage

    def _make(self, service: str) -> Any:  # noqa: ANN401 - boto3 has no types
        return self._stage.client(service)
