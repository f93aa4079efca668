"""Events: CloudEvents outside, our documents inside."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import jsonschema
import msgspec
import pytest
from hypothesis import given

from edgefleet.errors import DocumentError, UnknownFeatureError
from edgefleet.protocol import event as e
from edgefleet.protocol.documents import encode
from tests.contract import samples
from tests.protocol import strategies

if TYPE_CHECKING:
    from pathlib import Path

ALARM = e.Alarm(rule="scratch", message="3 in a row", model="digits")


@given(strategies.events)
def test_event_and_its_payload_read_back_the_same(event: e.Event) -> None:
    read = e.read_event(encode(event))
    assert read == event
    assert read.payload() == event.payload()


@given(strategies.events)
def test_every_event_is_a_valid_cloud_event(contracts: Path, event: e.Event) -> None:
    schema = json.loads((contracts / "cloudevents" / "cloudevents.json").read_bytes())
    checker = jsonschema.Draft7Validator.FORMAT_CHECKER
    jsonschema.Draft7Validator(schema, format_checker=checker).validate(json.loads(encode(event)))


@pytest.mark.parametrize("kind", e.KINDS)
def test_golden_event_is_a_valid_cloud_event(contracts: Path, kind: str) -> None:
    schema = json.loads((contracts / "cloudevents" / "cloudevents.json").read_bytes())
    jsonschema.validate(json.loads(encode(samples.EVENTS[kind])), schema)


def test_there_is_a_sample_of_every_kind() -> None:
    assert samples.EVENTS.keys() == e.KINDS.keys() == strategies.payloads.keys()


def test_new_event_names_its_kind_and_the_model_it_concerns() -> None:
    event = e.new_event(ALARM)
    assert (event.type, event.kind) == ("dev.edgefleet.alarm", "alarm")
    assert (event.subject, event.source) == ("digits", "urn:edgefleet:device")
    assert event.time.utcoffset() is not None


def test_event_about_no_model_has_no_subject() -> None:
    assert e.new_event(msgspec.structs.replace(ALARM, model=None)).subject is None
    assert e.new_event(msgspec.structs.replace(ALARM, model="")).subject is None


def test_events_of_one_moment_have_different_ids() -> None:
    ids = {e.new_event(ALARM, time=samples.NOON).id for _ in range(1000)}
    assert len(ids) == 1000


def test_receiver_takes_the_device_from_the_channel_not_from_the_body() -> None:
    lying = msgspec.structs.replace(e.new_event(ALARM), source="/devices/cam-01")
    event = e.attributed(e.read_event(encode(lying)), "cam-07")
    assert (event.device, event.source) == ("cam-07", "/devices/cam-07")


def test_alarms_and_health_are_hot() -> None:
    assert {"alarm", "health"} == e.HOT
    assert e.KINDS.keys() > e.HOT


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_prediction_of_a_number_that_is_not_finite_can_be_recorded(value: float) -> None:
    output = e.OutputSummary(name="y", shape=(2,), values=(value, 1.0), top=(1,), score=(value,))
    event = e.new_event(
        e.Prediction(
            model="m", model_version="1", bundle="b", variant="v", outputs=(output,), latency_us=1.0
        )
    )
    payload = e.read_event(encode(event)).payload()
    assert isinstance(payload, e.Prediction)
    assert (payload.outputs[0].values, payload.outputs[0].score) == ((None, 1.0), (None,))


@pytest.mark.parametrize("kind", ["dev.edgefleet.smell", "com.example.alarm", "alarm"])
def test_event_that_is_not_ours_is_kept_as_plain_data(kind: str) -> None:
    event = msgspec.structs.replace(e.new_event(ALARM), type=kind)
    with pytest.raises(DocumentError, match=f"events of type '{kind}' are unknown here") as refusal:
        event.payload()
    assert "Event.plain()" in str(refusal.value)
    assert event.plain()["data"]["message"] == "3 in a row"


def test_payload_from_the_future_is_refused_by_the_feature_it_needs() -> None:
    needy = msgspec.structs.replace(ALARM, requires=("holograms",))
    with pytest.raises(UnknownFeatureError, match="holograms"):
        e.new_event(needy).payload()


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "x" * 129},
        {"source": ""},
        {"type": ""},
        {"specversion": "0.3"},
        {"time": "yesterday"},
        {"time": "2026-11-21T12:00:00"},
        {"time": None},
    ],
    ids=str,
)
def test_malformed_envelope_is_refused(change: dict[str, object]) -> None:
    plain = json.loads(encode(e.new_event(ALARM))) | change
    with pytest.raises(DocumentError, match="malformed event"):
        e.read_event(json.dumps(plain).encode())


def test_extension_attributes_of_cloud_events_are_ignored() -> None:
    event = e.new_event(ALARM)
    plain = json.loads(encode(event)) | {"traceparent": "00-0af7", "dataschema": "urn:x"}
    assert e.read_event(json.dumps(plain).encode()).payload() == ALARM


def test_event_over_its_limit_is_refused_before_parsing() -> None:
    with pytest.raises(DocumentError, match="over the limit of 1048576"):
        e.read_event(b"[" * (e.MAX_BYTES + 1))


@pytest.mark.parametrize("text", [rb'"\xff"', rb'"\ud800"', b'{"a": 1e999}', b'{"\xff": 1}'])
def test_plain_data_of_an_event_with_malformed_data_is_refused(text: bytes) -> None:
    plain = encode(next(iter(samples.EVENTS.values())))
    start = plain.index(b'"data":') + len(b'"data":')
    end = plain.index(b',"datacontenttype"')
    with pytest.raises(DocumentError, match="malformed event"):
        e.read_event(plain[:start] + text + plain[end:]).plain()
