"""The kit's suite of channels over a Greengrass nucleus of the mock.

The link that is cut is the one to the nucleus: its socket goes, as while its own processes are
updated.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from edgefleet.errors import LimitExceededError
from edgefleet.testing.kit.device_channel import DeviceChannelConformance
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.errors import code_of
from edgefleet_aws.names import SHADOW, Names
from edgefleet_aws.revisions import base_settings, revised
from edgefleet_aws.state import S3StateStore
from edgefleet_aws.telemetry import S3Telemetry
from edgefleet_runtime.channels.greengrass.channel import GreengrassChannel
from providers.aws.tests.test_devices_conformance import environment, runtimes_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

DEVICE, GROUP = "cam-07", "line-3"
READ_AGAIN_S = 0.2


class Account:
    """An account with one core device, whose nucleus can be away."""

    def __init__(self, cloud: AwsMock, clients: Clients, settings: AwsSettings) -> None:
        self._clients, self._settings = clients, settings
        self.fleet = cloud.fleet
        self._site = cloud.fleet.greengrass.site
        self._region = str(clients.s3.meta.region_name)
        self._telemetry = S3Telemetry(clients, settings)
        self._is_cut = False
        self.fleet.install(settings, lifecycle={})
        store = S3StateStore(clients, settings)
        deployer = GreengrassDeployer(clients, settings, state=lambda: store)
        deployer.enroll(DEVICE, group=GROUP)
        name = f"{settings.prefix}:{GROUP}"
        self._target = clients.iot.describe_thing_group(thingGroupName=name)["thingGroupArn"]
        self.fleet.power_on(DEVICE, {})
        self.environment = runtimes_environment(self.fleet, DEVICE)

    def publish(self, pointer: bytes) -> None:
        wanted = {**base_settings(self._settings, self._region), "pointer": pointer.decode()}
        found = self._clients.greengrass.list_deployments(targetArn=self._target)["deployments"]
        there = None
        if found:
            latest = found[0]["deploymentId"]
            there = self._clients.greengrass.get_deployment(deploymentId=latest)
        with suppress(LimitExceededError):  # AWS brings a device no such document
            request = revised(there, self._target, Names(self._settings).prefix, wanted)
            self._clients.greengrass.create_deployment(**request)
        self._site.settle(DEVICE)

    def report(self) -> bytes | None:
        try:
            reply = self._clients.iot_data.get_thing_shadow(thingName=DEVICE, shadowName=SHADOW)
        except ClientError as error:
            if code_of(error) != "ResourceNotFoundException":
                raise
            return None
        found = json.loads(reply["payload"].read())["state"].get("reported", {})
        if "report" not in found:
            return None
        return json.dumps(found["report"][0], separators=(",", ":")).encode()

    def events(self) -> Sequence[Event]:
        return [event for _, event in self._telemetry._hot(DEVICE, None)]

    def file(self, name: str) -> bytes | None:
        key = f"{Names(self._settings).devices_folder(DEVICE)}{name}"
        try:
            reply = self._clients.s3.get_object(Bucket=self._settings.bucket, Key=key)
        except ClientError as error:
            if code_of(error) != "NoSuchKey":
                raise
            return None
        return bytes(reply["Body"].read())

    def cut(self) -> None:
        if not self._is_cut:
            self._is_cut = True
            self._site.stop_ipc(DEVICE)

    def restore(self) -> None:
        if self._is_cut:
            self._is_cut = False
            self._site.start_ipc(DEVICE)


class TestGreengrassChannel(DeviceChannelConformance):
    @pytest.fixture
    def far_end(self, cloud: AwsMock, clients: Clients, settings: AwsSettings) -> Iterator[Account]:
        made = Account(cloud, clients, settings)
        yield made
        made.restore()
        cloud.fleet.remove()

    @pytest.fixture
    def connect(self, far_end: Account) -> Callable[[], GreengrassChannel]:
        def made() -> GreengrassChannel:
            with environment(far_end.environment):
                return GreengrassChannel(DEVICE, read_again_s=READ_AGAIN_S)

        return made

    @pytest.fixture
    def from_options(self, far_end: Account) -> Callable[[Mapping[str, str]], GreengrassChannel]:
        def made(more: Mapping[str, str]) -> GreengrassChannel:
            with environment(far_end.environment):
                return GreengrassChannel.from_options(more, device=DEVICE)

        return made
