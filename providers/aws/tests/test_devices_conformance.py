"""The conformance kit over Greengrass on its mock: devices that the kit plays, and real ones.

Where the kit is the device, it speaks through the real channel and the real IPC: the nucleus
installs a runtime component that runs nothing.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.fleet import Fleet
from edgefleet.policy_files import policy_of
from edgefleet.profile import Profile
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.deployer import DeployerConformance
from edgefleet.testing.kit.devices import AddDevice, DeviceEnd, enrolling
from edgefleet.testing.kit.fleet import FleetConformance
from edgefleet.testing.kit.receiving import ReceivingConformance
from edgefleet.testing.kit.telemetry import TelemetryConformance
from edgefleet.testing.mock import FAST_TELEMETRY
from edgefleet_aws.cloud.recipes import Kind
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.names import Names
from edgefleet_aws.state import S3StateStore
from edgefleet_aws.telemetry import S3Telemetry
from edgefleet_runtime.channels.greengrass.channel import THING_VARIABLE, GreengrassChannel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet.protocol.report import AccessReport
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.cloud.fleet import DeviceFleet
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def runtimes_environment(fleet: DeviceFleet, name: str) -> dict[str, str]:
    """What the runtime of a device finds in its environment."""
    nucleus = fleet.greengrass.site.nucleus(name)
    (runtime,) = (one for one in nucleus.state if one.startswith("edgefleet.Runtime."))
    return dict(nucleus.environment(runtime))


class PlayedDevice:
    """A device's end of the channel, which looks when its nucleus has done what is wanted."""

    def __init__(self, fleet: DeviceFleet, name: str) -> None:
        self._fleet, self._name = fleet, name
        fleet.power_on(name, {})
        self._environment = runtimes_environment(fleet, name)
        with environment(self._environment):
            self.channel = GreengrassChannel.from_options({}, device=name)

    def pointer(self) -> bytes | None:
        self._fleet.greengrass.site.settle(self._name)
        return self.channel.pointer()

    def access(self) -> AccessReport:
        return self.channel.access()

    def send_report(self, report: bytes) -> None:
        self.channel.send_report(report)

    def send_hot(self, events: Sequence[Event]) -> None:
        self.channel.send_hot(events)

    def upload(self, name: str, path: Path) -> None:
        with environment(self._environment):
            self.channel.upload(name, path)


class _Devices:
    """Devices that the kit plays."""

    @pytest.fixture
    def devices(
        self, cloud: AwsMock, settings: AwsSettings, request: pytest.FixtureRequest
    ) -> Iterator[DeviceFleet]:
        real = "power_on" in request.fixturenames
        cloud.fleet.install(settings, lifecycle=None if real else {})
        yield cloud.fleet
        cloud.fleet.remove()

    @pytest.fixture
    def deployer(
        self, devices: DeviceFleet, clients: Clients, settings: AwsSettings
    ) -> GreengrassDeployer:
        store = S3StateStore(clients, settings)
        return GreengrassDeployer(clients, settings, state=lambda: store)

    @pytest.fixture
    def device_end(self, devices: DeviceFleet) -> Iterator[Callable[[str], DeviceEnd]]:
        made: dict[str, PlayedDevice] = {}

        def end(name: str) -> DeviceEnd:
            if name not in made:
                made[name] = PlayedDevice(devices, name)
            return made[name]

        yield end
        for one in made.values():
            one.channel.close()

    @pytest.fixture
    def expire_access(self, devices: DeviceFleet) -> Callable[[str], Callable[[], None]]:
        def expire(name: str) -> Callable[[], None]:
            devices.greengrass.devices.expired.add(name)
            return lambda: devices.greengrass.devices.expired.discard(name)

        return expire


class TestDeployer(_Devices, DeployerConformance):
    @pytest.fixture
    def foreign(
        self, deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
    ) -> tuple[Callable[[str], None], Callable[[], None]]:
        theirs: dict[str, Any] = {
            "deploymentName": "cameras of line 3",
            "deploymentPolicies": {"failureHandlingPolicy": "ROLLBACK"},
            "iotJobConfiguration": {"jobExecutionsRolloutConfig": {"maximumPerMinute": 500}},
        }
        component = {
            "componentVersion": "2.1.0",
            "configurationUpdate": {"merge": '{"fps": 25}', "reset": ["/gain"]},
        }
        target = []

        def plant(group: str) -> None:
            name = f"{settings.prefix}:{group}"
            target.append(clients.iot.describe_thing_group(thingGroupName=name)["thingGroupArn"])
            clients.greengrass.create_deployment(
                targetArn=target[0], components={"com.acme.Camera": component}, **theirs
            )

        def check() -> None:
            (latest,) = clients.greengrass.list_deployments(targetArn=target[0])["deployments"]
            found = clients.greengrass.get_deployment(deploymentId=latest["deploymentId"])
            assert {key: found[key] for key in theirs} == theirs
            assert found["components"]["com.acme.Camera"] == component

        return plant, check

    @pytest.fixture
    def forge_report(
        self, devices: DeviceFleet, device_end: Callable[[str], DeviceEnd]
    ) -> Callable[[str, str, bytes], None]:
        def forge(by: str, victim: str, report: bytes) -> None:
            device_end(by)
            told = runtimes_environment(devices, by)
            with environment({**told, THING_VARIABLE: victim}):  # a runtime that was tampered with
                forger = GreengrassChannel.from_options({}, device=victim)
            try:
                forger.send_report(report)
            finally:
                forger.close()

        return forge


class TestTelemetry(_Devices, TelemetryConformance):
    @pytest.fixture
    def telemetry(self, clients: Clients, settings: AwsSettings) -> S3Telemetry:
        return S3Telemetry(clients, settings)

    @pytest.fixture
    def add_device(self, deployer: GreengrassDeployer) -> AddDevice:
        return enrolling(self, deployer)


class TestReceiving(ReceivingConformance):
    @pytest.fixture
    def telemetry(self, clients: Clients, settings: AwsSettings) -> S3Telemetry:
        return S3Telemetry(clients, settings)


class ListsWhatIsGone(S3Telemetry):
    """A rule of the bucket's deletes a file of each device between its listing and its reading."""

    def _items(self, device: str, start: str) -> Iterator[dict[str, Any]]:
        folder = Names(self._settings).devices_folder(device)
        yield {"Key": f"{folder}{start}{'0' * 64}.json", "LastModified": datetime.now(UTC)}
        yield from super()._items(device, start)


def test_a_file_of_hot_events_that_a_lifecycle_rule_deletes_meanwhile_is_passed_over(
    clients: Clients, settings: AwsSettings
) -> None:
    telemetry = ListsWhatIsGone(clients, settings)
    telemetry.receive_hot("cam-1", [sent := samples.alarm(1)])
    assert [event.id for event in telemetry.query(device="cam-1", kind="alarm")] == [sent.id]


def test_files_of_hot_events_that_came_before_are_not_fetched(
    clients: Clients, settings: AwsSettings
) -> None:
    telemetry = S3Telemetry(clients, settings)
    telemetry.receive_hot("cam-1", [sent := samples.alarm(1)])
    hour = timedelta(hours=1)
    now = datetime.now(UTC)
    assert [event.id for _, event in telemetry._hot("cam-1", now - hour)] == [sent.id]
    assert list(telemetry._hot("cam-1", now + hour)) == []


class TestFleet(_Devices, FleetConformance):
    @pytest.fixture
    def fleet(self, devices: DeviceFleet, settings: AwsSettings) -> Iterator[Fleet]:
        profile = Profile(
            name="test",
            base=settings.cache,
            provider="aws",
            recorded=policy_of(FAST_TELEMETRY, "the mock"),
            settings={"aws": settings.model_dump(mode="json", exclude_none=True)},
        )
        with Fleet(profile) as fleet:
            yield fleet

    @pytest.fixture
    def power_on(self, devices: DeviceFleet, settings: AwsSettings) -> AddDevice:
        def add(name: str, /, *, group: str, labels: Mapping[str, str] | None = None) -> None:
            devices.add(settings, name, group=group, labels=labels or {})

        return add

    @pytest.fixture(params=list(Kind), ids=lambda kind: kind.value)
    def of_kind(self, devices: DeviceFleet, request: pytest.FixtureRequest) -> None:
        """Every device has this nucleus."""
        devices.nuclei = (request.param,)

    @pytest.mark.usefixtures("of_kind")
    def test_ten_releases_leave_the_runtime_alone(
        self, fleet: Fleet, power_on: AddDevice, tmp_path: Path
    ) -> None:
        super().test_ten_releases_leave_the_runtime_alone(fleet, power_on, tmp_path)
