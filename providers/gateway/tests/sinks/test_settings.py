"""What settings of sinks are taken, from a profile's table on; and a gateway that has sinks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from edgefleet.errors import MissingExtraError, ProfileError, UnavailableError, UnsupportedError
from edgefleet.interfaces.retrying import Pauses
from edgefleet.profile import load_profile
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.gateway import digest_field
from edgefleet.protocol.segment import SegmentName, write_segment
from edgefleet.services import Services
from edgefleet.testing.kit import samples
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.server.assembly import assemble, settings_in
from edgefleet_gateway.settings import GatewaySettings
from edgefleet_gateway.sinks.running import Forwarding
from providers.gateway.tests.server_rig import Fleet
from providers.gateway.tests.sinks.receiving import Receiver

HTTP = {"kind": "http", "name": "plant", "url": "https://plant.example/events"}
MQTT = {"kind": "mqtt", "name": "ship", "address": "mqtts://ship.example"}
KAFKA = {"kind": "kafka", "name": "lake", "brokers": ["lake.example:9093"]}
PROFILE = """\
[profiles.default]
registry = "local"
state = "local"
telemetry = "local"
deployers = ["gateway"]

[[profiles.default.gateway.sinks]]
kind = "http"
name = "plant"
url = "https://plant.example/events"
token = "secrets/plant"

[[profiles.default.gateway.sinks]]
kind = "kafka"
name = "lake"
brokers = ["lake.example:9093"]
segments = true
"""


def test_a_profile_s_tables_are_sinks(tmp_path: Path) -> None:
    config = tmp_path / "edgefleet.toml"
    config.write_text(PROFILE)
    plant, lake = settings_in(load_profile(config=config)).sinks
    assert (plant.kind, plant.name, plant.segments) == ("http", "plant", False)
    assert (lake.kind, lake.name, lake.segments) == ("kafka", "lake", True)


@pytest.mark.parametrize(
    "sink,words",
    [
        ({**HTTP, "url": "http://plant.example/events"}, "encrypted"),
        ({**HTTP, "url": "https://ada:secret@plant.example/"}, "no credential"),
        ({**HTTP, "password": "x"}, "Extra inputs"),
        ({**HTTP, "name": "../plant"}, "pattern"),
        ({**HTTP, "certificate": "mine.pem"}, "go together"),
        ({**MQTT, "address": "mqtt://ship.example"}, "encrypted"),
        ({**MQTT, "address": "mqtts://ship.example/topic"}, "no path"),
        ({**MQTT, "topic": "ships/#"}, "no topic"),
        ({**MQTT, "topic": "ships/{fleet}"}, "no topic"),
        ({**KAFKA, "brokers": ["lake.example"]}, "HOST:PORT"),
        ({**KAFKA, "tls": False}, "TLS only"),
        ({**KAFKA, "topic": "a b"}, "no topic"),
        ({"kind": "smoke", "name": "x"}, "does not match any of the expected tags"),
    ],
)
def test_what_is_wrong_with_a_sink_is_told(sink: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        GatewaySettings.model_validate({"sinks": [sink]})


def test_two_sinks_need_two_names() -> None:
    GatewaySettings.model_validate({"sinks": [HTTP, MQTT, KAFKA]})
    with pytest.raises(ValidationError, match="same name"):
        GatewaySettings.model_validate({"sinks": [HTTP, {**MQTT, "name": "plant"}]})


@pytest.mark.parametrize("sink,module", [(MQTT, "paho.mqtt"), (KAFKA, "confluent_kafka")])
def test_a_client_that_is_missing_is_told_at_the_start(
    sink: dict[str, Any], module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (settings,) = GatewaySettings.model_validate({"sinks": [sink]}).sinks
    with pytest.raises(MissingExtraError, match="pip install"):
        Forwarding([settings], tmp_path, base=tmp_path)


def test_a_secret_that_is_not_there_is_told_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be noticed at the first alarm otherwise, when it is late."""
    (tmp_path / "there").write_text("hush-1234")
    sinks = [{**HTTP, "token": "nowhere"}, {**HTTP, "name": "well", "token": "there"}]
    settings = GatewaySettings.model_validate({"sinks": sinks}).sinks
    with closing(Forwarding(settings, tmp_path, base=tmp_path)):
        pass
    assert f"the sink plant delivers nothing yet: its token {tmp_path / 'nowhere'}" in caplog.text
    assert "the sink well" not in caplog.text
    assert "hush" not in caplog.text


def test_a_profile_whose_telemetry_takes_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "edgefleet.toml"
    config.write_text(PROFILE)

    class Deaf:
        provider, role = "deaf", "telemetry"

    monkeypatch.setattr(Services, "telemetry", property(lambda _: Deaf()))
    with (
        closing(Services(load_profile(config=config))) as services,
        pytest.raises(UnsupportedError, match="lacks CanReceive") as caught,
    ):
        assemble(services)
    assert "use a provider that has it" in str(caught.value)


def test_settings_that_are_wrong_name_the_table(tmp_path: Path) -> None:
    config = tmp_path / "edgefleet.toml"
    config.write_text(PROFILE.replace("https://plant", "http://plant"))
    with pytest.raises(ProfileError, match=r"profiles\.default\.gateway"):
        settings_in(load_profile(config=config))


@pytest.mark.parametrize(
    "line, said",
    [
        ('adresses = ["https://gw:1"]', "adresses: there is no such key"),
        ('addresses = "https://gw:1"', r"addresses: it is a list: write \["),
        ('addresses = ["http://gw:1"]', "addresses: 'http://gw:1' is no gateway: write https://"),
    ],
)
def test_a_key_that_is_wrong_is_told_in_words_of_the_file(
    tmp_path: Path, line: str, said: str
) -> None:
    config = tmp_path / "edgefleet.toml"
    head, *_ = PROFILE.partition("[[")
    config.write_text(f"{head}[profiles.default.gateway]\n{line}\n")
    with pytest.raises(ProfileError, match=said) as caught:
        settings_in(load_profile(config=config))
    assert "edgefleet providers gateway" in str(caught.value.cure)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


def test_what_a_device_sends_is_forwarded_once_and_also_while_telemetry_is_away(
    tmp_path: Path, receiver: Receiver
) -> None:
    sink = {**HTTP, "url": receiver.url, "segments": True}
    sinks = GatewaySettings.model_validate({"sinks": [sink]}).sinks
    soon = Pauses(first_s=0.01, most_s=0.02, longest_told_s=0.5)
    fleet = Fleet(tmp_path)
    with (
        closing(Forwarding(sinks, tmp_path / "scratch", base=tmp_path, pauses=soon)) as forwards,
        fleet.gateway(forwards=forwards) as serving,
    ):
        device = fleet.device(serving, "cam-1")
        hot, kept = samples.alarm(1), samples.prediction(2)
        headers = {"Content-Type": "application/cloudevents-batch+json"}
        body = msgspec.json.encode([hot])
        assert device.ask("POST", "/v1/events", body, headers).status == 204
        with (tmp_path / "segment").open("wb") as stream:
            write_segment([kept], stream)
        data = (tmp_path / "segment").read_bytes()
        name = SegmentName(day=samples.MOMENT.date(), device="cam-1", model="digits", id="0-1")
        told = {
            "Content-Type": "application/partial-upload",
            "Upload-Offset": "0",
            "Upload-Length": str(len(data)),
            "Upload-Complete": "?1",
            "Repr-Digest": digest_field(digest_of(data)),
        }
        fleet.receiver.fails = UnavailableError("telemetry is away")
        late = msgspec.json.encode([alarm := samples.alarm(3)])
        for _ in range(3):
            assert device.ask("POST", "/v1/events", late, headers).status == 503
        eventually(lambda: receiver.ids == [hot.id, alarm.id])
        fleet.receiver.fails = None
        assert device.ask("POST", "/v1/events", late, headers).status == 204
        path = f"/v1/files/{name.below_device}"
        assert device.ask("PATCH", path, data, told).status == 201
        eventually(lambda: next(forwards.figures()).sent == 3)
        assert receiver.ids == [hot.id, alarm.id, kept.id]
        figures = fleet.stranger(serving).get("/metrics").body.decode()
        assert 'edgefleet_gateway_sink_sent_total{sink="plant"} 3.0' in figures
        assert 'edgefleet_gateway_sink_waiting{sink="plant"} 0.0' in figures
