"""The mock of AWS: one loopback port that serves S3, SageMaker, IoT Core, Greengrass and the rest.

moto answers most of it; `cloud` holds requests and answers to botocore's service models, mends what
moto does otherwise than AWS, and really runs training jobs and devices: each has a stand-in for one
of the two nuclei, which runs the real runtime. See ``mock_rules.md`` for each rule.
What the cloud holds lives in memory; when it stops in order, it is kept in the mock's folder, and a
mock that starts there goes on with it.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from edgefleet.plugins.provider import Role
from edgefleet.testing.cloud.keeping import Keeper, Place
from edgefleet.testing.cloud.refusals import made_of_extra, not_running
from edgefleet.testing.cloud.rules import Rules
from edgefleet.testing.mock import MockCloud, without_proxy
from edgefleet_aws.cloud.calls import throttled
from edgefleet_aws.settings import AwsSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet.testing.cloud.keeping import Part
    from edgefleet_aws.cloud.fleet import DeviceFleet
    from edgefleet_aws.cloud.stage import Stage

VENDOR = "AWS"
REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
TRAINING_ROLE = f"arn:aws:iam::{ACCOUNT}:role/edgefleet-training"
PIPELINE_ROLE = f"arn:aws:iam::{ACCOUNT}:role/edgefleet-pipelines"
TRAINING_IMAGE = "mock/python:3"  # never pulled: scripts run with this Python


class AwsMock(MockCloud):
    """AWS on this machine.

    Attributes:
        bucket: the bucket that is there when it has started.
        rules: faults to inject.
    """

    name: ClassVar[str] = "aws"
    roles: ClassVar[frozenset[Role]] = frozenset(Role)

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.bucket = f"edgefleet-mock-{secrets.token_hex(4)}"
        self.rules = Rules(throttled)
        self._keeper = Keeper(state / "cloud.json")
        self._stage: Stage | None = None
        self._fleet: DeviceFleet | None = None

    def start(self) -> None:
        """Listen on loopback; no error when it does already.

        Raises:
            MissingExtraError: what the mock is made of isn't installed.
        """
        if self._stage is not None and self._stage.running:
            return
        with made_of_extra(VENDOR, "edgefleet-aws"):
            from edgefleet_aws.cloud.fleet import DeviceFleet  # noqa: PLC0415 - likewise
            from edgefleet_aws.cloud.stage import Stage  # noqa: PLC0415 - the extra may be missing
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "aws-config").write_text("[default]\n", encoding="utf-8")
        (self.state / "aws-credentials").write_text("[default]\n", encoding="utf-8")
        place = Place({"bucket": self.bucket, "port": 0})
        self._keeper.restore({"place": place})
        self.bucket = place.told["bucket"]
        self._stage = Stage(self.rules, self.state, region=REGION)
        self._stage.open(self.bucket, place.told["port"])
        self._fleet = DeviceFleet(
            self._stage, REGION, self.state / "devices", borrowed=lambda: self.borrowed.variables
        )
        self._keeper.restore(self._parts(self._stage, self._fleet))

    def stop(self) -> None:
        """End devices and training jobs, keep what there is, and stop listening."""
        self.rules.clear()
        stage, fleet = self._stage, self._fleet
        self._stage = self._fleet = None
        if stage is None or fleet is None:
            return
        place = Place({"bucket": self.bucket, "port": urlsplit(stage.url).port or 0})
        try:
            fleet.shut_down()
            stage.end_jobs()
            self._keeper.save({"place": place, **self._parts(stage, fleet)})
        finally:
            fleet.forget()
            stage.close()

    @staticmethod
    def _parts(stage: Stage, fleet: DeviceFleet) -> dict[str, Part]:
        return {**fleet.greengrass.parts, **stage.parts, "devices": fleet}

    @property
    def _url(self) -> str:
        if self._stage is None or not self._stage.running:
            raise not_running(VENDOR)
        return self._stage.url

    @property
    def environment(self) -> dict[str, str]:
        """What every AWS SDK and tool reads: address, throw-away keys, no other configuration."""
        return {
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ACCESS_KEY_ID": "mock",
            "AWS_SECRET_ACCESS_KEY": "mock",
            "AWS_SESSION_TOKEN": "mock",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_PROFILE": "default",
            "AWS_CONFIG_FILE": str((self.state / "aws-config").absolute()),
            "AWS_SHARED_CREDENTIALS_FILE": str((self.state / "aws-credentials").absolute()),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_S3": self._url,
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false",
            **without_proxy(),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """The bucket, what training needs, and a mirror for devices that don't speak S3."""
        return {
            "bucket": self.bucket,
            "region": REGION,
            "mirrors": [f"{self._url}/{self.bucket}/{AwsSettings.model_fields['prefix'].default}"],
            "training_role": TRAINING_ROLE,
            "pipeline_role": PIPELINE_ROLE,
            "training_image": TRAINING_IMAGE,
            "cache": str((self.state / "cache").absolute()),
        }

    @property
    def fleet(self) -> DeviceFleet:
        """The devices.

        Raises:
            ConfigurationError: the mock isn't running.
        """
        if self._fleet is None or not self._url:
            raise not_running(VENDOR)
        return self._fleet

    def add_device(self, name: str, *, group: str, labels: Mapping[str, str] | None = None) -> None:
        """Enrol a device; its nucleus starts at once, and the runtime when that has deployed it."""
        self.fleet.add(AwsSettings(**self.settings), name, group=group, labels=labels or {})

    def add_user(self, name: str, policy: Mapping[str, Any]) -> None:
        """Add somebody who may do what an IAM policy says, and no more.

        Sign in as them with the profile of that name, such as ``credentials_profile``.
        """
        from edgefleet_aws.cloud.principals import add_user  # noqa: PLC0415 - likewise

        key, secret = add_user(name, policy)
        text = f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
        with (self.state / "aws-credentials").open("a", encoding="utf-8") as file:
            file.write(text)

    def kill_device(self, name: str) -> None:
        """Cut a device's power: nucleus and runtime are killed; its disk stays."""
        self.fleet.greengrass.site.power_off(name)

    def start_device(self, name: str) -> None:
        """Give a device its power back."""
        self.fleet.greengrass.site.power_on(name)

    def interrupt_training(self, run_id: str) -> None:
        """Take the spare capacity away from a run of spot training: it is interrupted, starts anew.

        Raises:
            ConfigurationError: the mock isn't running.
            ValueError: the run is no spot training, or doesn't train just now.
        """
        if self._stage is None or not self._url:
            raise not_running(VENDOR)
        self._stage.interrupt_training(run_id)

    def seen(self) -> Iterator[str]:
        """Every request: when, service and operation, path, status."""
        if self._stage is not None:
            yield from self._stage.seen()
