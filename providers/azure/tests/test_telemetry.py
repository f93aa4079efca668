"""The conformance kit over Azure's telemetry, and what only it has: hubs, arrivals, members."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from edgefleet.errors import AccessDeniedError, NotFoundError
from edgefleet.protocol.event import Event
from edgefleet.protocol.names import check_path
from edgefleet.protocol.report import AccessReport
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import AddDevice, DeviceEnd, enrolling
from edgefleet.testing.kit.receiving import ReceivingConformance
from edgefleet.testing.kit.telemetry import TelemetryConformance
from edgefleet_azure.access import AccessGrants
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.calls import throttled
from edgefleet_azure.cloud.hub_state import HubState
from edgefleet_azure.cloud.hub_values import Message
from edgefleet_azure.events import sources
from edgefleet_azure.manifests import MODULE, UPLOAD
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.renewal import RenewingDeployer
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore
from edgefleet_azure.telemetry import AzureTelemetry


class PlayedDevice:
    """A device's end: it has its own twin's access, and sends as IoT Hub knows it."""

    def __init__(self, hub: HubState, name: str) -> None:
        self._hub, self._name = hub, name

    def send_hot(self, events: Sequence[Event]) -> None:
        body = b'{"events":[' + b",".join(msgspec.json.encode(one) for one in events) + b"]}"
        self._hub.send(Message(self._name, MODULE, body))

    def upload(self, name: str, path: Path) -> None:
        below = check_path(name, what="segment name")
        given = self._hub.twin(self._name, MODULE)["desired"][UPLOAD]
        headers = {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*"}
        url = f"{given['address']}/{below}?{given['write']}"
        request = urllib.request.Request(url, path.read_bytes(), headers, method="PUT")
        try:
            urllib.request.urlopen(request, context=ssl.create_default_context()).close()
        except urllib.error.HTTPError as error:
            with error:
                if error.headers.get("x-ms-error-code") != "BlobAlreadyExists":
                    raise AccessDeniedError(str(error.code)) from error

    def pointer(self) -> bytes | None:
        raise NotImplementedError

    def access(self) -> AccessReport:
        raise NotImplementedError

    def send_report(self, report: bytes) -> None:
        raise NotImplementedError


@pytest.fixture
def deployer(
    cloud: AzureMock, clients: Clients, settings: AzureSettings, tmp_path: Path
) -> Iterator[RenewingDeployer]:
    """Its devices are gone with the test: those of the next one have the same names."""
    store = BlobStateStore(clients, settings)
    grants = AccessGrants(clients, settings)
    made = RenewingDeployer(clients, settings, state=lambda: store, grants=grants, base=tmp_path)
    yield made
    for device in list(made.devices()):
        made.retire(device.name)
    cloud.stage.events["hub-1"].forget()


@pytest.fixture
def hub(cloud: AzureMock) -> HubState:
    return cloud.stage.iot_hubs["hub-1"].state


class TestConformance(TelemetryConformance):
    @pytest.fixture
    def telemetry(self, clients: Clients, settings: AzureSettings) -> AzureTelemetry:
        return AzureTelemetry(clients, settings)

    @pytest.fixture
    def device_end(self, hub: HubState) -> Callable[[str], DeviceEnd]:
        return lambda name: PlayedDevice(hub, name)

    @pytest.fixture
    def add_device(self, deployer: RenewingDeployer) -> AddDevice:
        return enrolling(self, deployer)


class TestReceiving(ReceivingConformance):
    @pytest.fixture
    def telemetry(self, clients: Clients, settings: AzureSettings) -> AzureTelemetry:
        return AzureTelemetry(clients, settings)


@pytest.fixture
def telemetry(clients: Clients, settings: AzureSettings) -> AzureTelemetry:
    return AzureTelemetry(clients, settings)


def alarms(telemetry: AzureTelemetry) -> list[tuple[str, str]]:
    return [(str(event.device), event.id) for event in telemetry.query(kind="alarm")]


def test_hot_events_of_another_fleet_on_the_hub_are_left_out(
    telemetry: AzureTelemetry,
    deployer: RenewingDeployer,
    make_settings: Callable[..., AzureSettings],
    hub: HubState,
    tmp_path: Path,
) -> None:
    deployer.enroll("ours", group="line-3")
    others = make_settings()
    clients = Clients(others)
    store = BlobStateStore(clients, others)
    theirs = RenewingDeployer(
        clients,
        others,
        state=lambda: store,
        grants=AccessGrants(clients, others),
        base=tmp_path,
    )
    theirs.enroll("theirs", group="line-3")
    PlayedDevice(hub, "theirs").send_hot([samples.alarm(2)])
    PlayedDevice(hub, "ours").send_hot([mine := samples.alarm(1)])
    assert alarms(telemetry) == [("ours", mine.id)]
    theirs.retire("theirs")
    theirs.close()


def test_a_hot_event_is_the_senders_whatever_it_says(
    telemetry: AzureTelemetry, deployer: RenewingDeployer, hub: HubState
) -> None:
    deployer.enroll("thief", group="line-3")
    deployer.enroll("victim", group="line-3")
    forged = msgspec.structs.replace(samples.alarm(1), source="/devices/victim")
    PlayedDevice(hub, "thief").send_hot([forged])
    assert alarms(telemetry) == [("thief", forged.id)]


def test_messages_of_other_modules_are_no_events(
    telemetry: AzureTelemetry, deployer: RenewingDeployer, hub: HubState
) -> None:
    deployer.enroll("cam-1", group="line-3")
    body = b'{"events":[' + msgspec.json.encode(samples.alarm(1)) + b"]}"
    hub.send(Message("cam-1", "$edgeAgent", body))
    assert alarms(telemetry) == []


def test_a_message_that_is_none_hides_no_other(
    telemetry: AzureTelemetry, deployer: RenewingDeployer, hub: HubState
) -> None:
    deployer.enroll("cam-1", group="line-3")
    for noise in (b"", b"[]", b'{"events":[{"id":1}]}', b"\xff" * 10):
        hub.send(Message("cam-1", MODULE, noise))
    PlayedDevice(hub, "cam-1").send_hot([good := samples.alarm(1)])
    assert alarms(telemetry) == [("cam-1", good.id)]


def test_a_hub_of_the_profile_that_is_not_there_is_told(
    make_settings: Callable[..., AzureSettings], make_clients: Callable[[AzureSettings], Clients]
) -> None:
    settings = make_settings(hubs=["elsewhere.azure-devices.net"])
    with pytest.raises(NotFoundError, match="elsewhere"):
        list(AzureTelemetry(make_clients(settings), settings).query(kind="alarm"))


def test_a_throttled_resource_manager_is_asked_again(
    cloud: AzureMock, telemetry: AzureTelemetry, deployer: RenewingDeployer, hub: HubState
) -> None:
    deployer.enroll("cam-1", group="line-3")
    PlayedDevice(hub, "cam-1").send_hot([sent := samples.alarm(1)])
    cloud.rules.add(Rule("IotHubs.ListByResourceGroup", times=2, fault=throttled(0)))
    cloud.rules.add(Rule("IotHubs.GetKeysForKeyName", times=2, fault=throttled(0)))
    assert alarms(telemetry) == [("cam-1", sent.id)]


def test_who_may_not_read_a_hubs_keys_is_told_so(
    cloud: AzureMock, settings: AzureSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user("onlooker", ["Reader"]))
    telemetry = AzureTelemetry(Clients(settings), settings)
    with pytest.raises(AccessDeniedError):
        list(telemetry.query(kind="alarm"))
    telemetry.close()


def test_an_event_hub_that_the_profile_names_is_read_with_our_own_identity(
    make_settings: Callable[..., AzureSettings], clients: Clients, cloud: AzureMock
) -> None:
    host = cloud.settings["hubs"][0]
    settings = make_settings(events_endpoint={host: "plant.servicebus.windows.net/hot"})
    [source] = sources(clients, settings)
    assert (source.host, source.name) == ("plant.servicebus.windows.net", "hot")
    assert source.credential is clients.credential
