"""The conformance kit over Google Cloud's telemetry, and what only it has: published events."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgefleet.errors import AccessDeniedError, NotFoundError, ThrottledError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Event
from edgefleet.protocol.report import AccessReport
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.devices import AddDevice, DeviceEnd
from edgefleet.testing.kit.receiving import ReceivingConformance
from edgefleet.testing.kit.telemetry import TelemetryConformance
from edgefleet_gcp.clients import Clients, pubsub_url
from edgefleet_gcp.cloud.calls import throttled
from edgefleet_gcp.mock import PROJECT, GcpMock
from edgefleet_gcp.settings import GcpSettings
from edgefleet_gcp.telemetry import BATCH, GcsTelemetry
from edgefleet_runtime.channels.messages import packed
from edgefleet_runtime.channels.pubsub import PubSubSender
from edgefleet_runtime.store.gcs_upload import GcsUploads
from edgefleet_runtime.store.google import GoogleTokens

Tokens = Callable[[str], GoogleTokens]


class FolderDevice:
    """A device that writes all below its own folder, hot events too."""

    def __init__(self, settings: GcpSettings, name: str, tokens: GoogleTokens, root: Path) -> None:
        self._root = root
        self._uploads = GcsUploads(settings.root, name, tokens)

    def send_hot(self, events: Sequence[Event]) -> None:
        for number, message in enumerate(packed(events, 1 << 20)):
            file = self._root / "hot"
            file.write_bytes(message)
            self._uploads.put(f"hot/{events[0].id}-{len(events)}-{number}.json", file)

    def upload(self, name: str, path: Path) -> None:
        self._uploads.put(name, path)

    def pointer(self) -> bytes | None:
        raise NotImplementedError

    def access(self) -> AccessReport:
        raise NotImplementedError

    def send_report(self, report: bytes) -> None:
        raise NotImplementedError


class PublishingDevice(FolderDevice):
    """A device that publishes hot events to the fleet's topic."""

    def __init__(self, settings: GcpSettings, name: str, tokens: GoogleTokens, root: Path) -> None:
        super().__init__(settings, name, tokens, root)
        self._sender = PubSubSender(f"pubsub://{PROJECT}/{settings.topic}", name, tokens)

    def send_hot(self, events: Sequence[Event]) -> None:
        self._sender.send(events)


class TestByFolder(TelemetryConformance):
    device: type[FolderDevice] = FolderDevice

    @pytest.fixture
    def telemetry(self, clients: Clients, settings: GcpSettings) -> GcsTelemetry:
        return GcsTelemetry(clients, settings)

    @pytest.fixture
    def device_end(
        self, settings: GcpSettings, device_tokens: Tokens, tmp_path: Path
    ) -> Callable[[str], DeviceEnd]:
        known: dict[str, FolderDevice] = {}

        def end(name: str) -> DeviceEnd:
            if name not in known:
                known[name] = self.device(settings, name, device_tokens(name), tmp_path)
            return known[name]

        return end

    @pytest.fixture
    def add_device(self) -> AddDevice:
        return lambda *_, **__: None  # its account is made with its end


class TestReceiving(ReceivingConformance):
    @pytest.fixture
    def telemetry(self, clients: Clients, settings: GcpSettings) -> GcsTelemetry:
        return GcsTelemetry(clients, settings)


class TestByTopic(TestByFolder):
    device = PublishingDevice

    @pytest.fixture
    def settings(self, make_settings: Callable[..., GcpSettings]) -> GcpSettings:
        return make_settings(trust_senders=True)


@pytest.fixture
def trusting(make_settings: Callable[..., GcpSettings]) -> GcpSettings:
    return make_settings(trust_senders=True)


@pytest.fixture
def telemetry(
    make_clients: Callable[[GcpSettings], Clients], trusting: GcpSettings
) -> GcsTelemetry:
    return GcsTelemetry(make_clients(trusting), trusting)


@pytest.fixture
def publish(
    make_clients: Callable[[GcpSettings], Clients], trusting: GcpSettings
) -> Callable[[dict[str, Any]], None]:
    clients = make_clients(trusting)

    def publish(message: dict[str, Any]) -> None:
        url = f"{pubsub_url()}/v1/projects/{PROJECT}/topics/{trusting.topic}:publish"
        clients.call("POST", url, json={"messages": [message]})

    return publish


def _structured(event: Event, device: str = "cam-1") -> dict[str, Any]:
    attributes = {"content-type": "application/cloudevents+json", "device": device}
    return {"data": base64.b64encode(encode(event)).decode(), "attributes": attributes}


def _waiting(cloud: GcpMock, settings: GcpSettings) -> int:
    name = f"projects/{PROJECT}/subscriptions/{settings.subscription}"
    return cloud.stage.pubsub.waiting(name)


def _alarms(telemetry: GcsTelemetry) -> list[tuple[str, str]]:
    return sorted((str(event.device), event.id) for event in telemetry.query(kind="alarm"))


def test_published_events_are_left_where_their_senders_are_not_trusted(
    cloud: GcpMock,
    telemetry: GcsTelemetry,
    trusting: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    publish: Callable[[dict[str, Any]], None],
) -> None:
    publish(_structured(sent := samples.alarm(1)))
    wary = trusting.model_copy(update={"trust_senders": False})
    assert _alarms(GcsTelemetry(make_clients(wary), wary)) == []
    assert _waiting(cloud, trusting) == 1
    assert _alarms(telemetry) == [("cam-1", sent.id)]


def test_an_event_in_binary_mode_is_read_as_one_in_structured_mode(
    telemetry: GcsTelemetry, publish: Callable[[dict[str, Any]], None]
) -> None:
    sent = samples.alarm(1)
    told = json.loads(encode(sent))
    data = base64.b64encode(json.dumps(told.pop("data")).encode()).decode()
    told.pop("datacontenttype", None)
    attributes = {f"ce-{name}": value for name, value in told.items()}
    publish(
        {
            "data": data,
            "attributes": {
                "device": "cam-1",
                "ce-specversion": "1.0",
                "content-type": "application/json",
                **attributes,
            },
        }
    )
    assert _alarms(telemetry) == [("cam-1", sent.id)]


def test_messages_that_are_no_events_are_dropped_and_hide_no_other(
    cloud: GcpMock,
    telemetry: GcsTelemetry,
    trusting: GcpSettings,
    publish: Callable[[dict[str, Any]], None],
) -> None:
    good = samples.alarm(1)
    for noise in (
        {"data": base64.b64encode(b"{}").decode()},
        {"attributes": {"device": "cam-1"}},
        _structured(good, device="../victim"),
        {**_structured(good), "data": base64.b64encode(b"\xff{").decode()},
        {"attributes": {"device": "cam-1", "ce-id": "1"}, "data": "////"},
        {
            "attributes": {"device": "cam-1", "ce-id": "1"},
            "data": base64.b64encode(b"[" * 5000 + b"]" * 5000).decode(),
        },
    ):
        publish(noise)
    publish(_structured(good))
    assert _alarms(telemetry) == [("cam-1", good.id)]
    assert _waiting(cloud, trusting) == 0


def test_an_event_is_stored_before_it_is_acknowledged(
    cloud: GcpMock,
    telemetry: GcsTelemetry,
    trusting: GcpSettings,
    publish: Callable[[dict[str, Any]], None],
) -> None:
    publish(_structured(sent := samples.alarm(1)))
    cloud.rules.add(Rule("storage.InsertObject", times=None, fault=throttled(3600)))
    with pytest.raises(ThrottledError):
        _alarms(telemetry)
    assert _waiting(cloud, trusting) == 1
    cloud.rules.clear()
    cloud.stage.pubsub.pass_time(61)
    assert _alarms(telemetry) == [("cam-1", sent.id)]


def test_an_acknowledgement_that_was_lost_counts_no_event_double(
    cloud: GcpMock,
    telemetry: GcsTelemetry,
    trusting: GcpSettings,
    publish: Callable[[dict[str, Any]], None],
) -> None:
    publish(_structured(sent := samples.alarm(1)))
    cloud.rules.add(Rule("pubsub.Acknowledge", times=None, fault=throttled(3600)))
    with pytest.raises(ThrottledError):
        _alarms(telemetry)
    cloud.rules.clear()
    cloud.stage.pubsub.pass_time(61)
    assert _alarms(telemetry) == [("cam-1", sent.id)]
    assert _waiting(cloud, trusting) == 0


def test_more_events_than_one_batch_are_all_collected(
    cloud: GcpMock,
    telemetry: GcsTelemetry,
    trusting: GcpSettings,
    publish: Callable[[dict[str, Any]], None],
) -> None:
    sent = [
        msgspec.structs.replace(samples.alarm(0), id=f"e{number}") for number in range(BATCH + 5)
    ]
    for event in sent:
        publish(_structured(event))
    assert {found for _, found in _alarms(telemetry)} == {event.id for event in sent}
    assert _waiting(cloud, trusting) == 0


def test_a_subscription_that_is_not_there_is_told_with_what_names_it(
    make_settings: Callable[..., GcpSettings], make_clients: Callable[[GcpSettings], Clients]
) -> None:
    settings = make_settings(trust_senders=True, subscription="nobody-made-it")
    with pytest.raises(NotFoundError, match="`subscription`"):
        _alarms(GcsTelemetry(make_clients(settings), settings))


def test_who_may_not_take_from_the_subscription_is_told_the_permission(
    cloud: GcpMock,
    trusting: GcpSettings,
    make_clients: Callable[[GcpSettings], Clients],
    become: Callable[[str], None],
) -> None:
    cloud.add_account("onlooker", {"bucket": ["storage.objects.list", "storage.objects.get"]})
    become("onlooker")
    with pytest.raises(AccessDeniedError, match=r"pubsub\.subscriptions\.consume"):
        _alarms(GcsTelemetry(make_clients(trusting), trusting))
