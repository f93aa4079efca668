from __future__ import annotations

import pytest

from device_runtime.tests.support import MemoryChannel
from device_runtime.tests.sync.rig import alarm, health, metric
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Alarm, HealthEvent, new_event
from edgefleet_runtime.channels.base import Channel
from edgefleet_runtime.channels.greengrass.channel import GreengrassChannel
from edgefleet_runtime.channels.iotedge.channel import IotEdgeChannel
from edgefleet_runtime.channels.messages import packed
from edgefleet_runtime.channels.pubsub import PubSubSender
from edgefleet_runtime.sync.hot import chosen, first_bytes, fitted, message_bytes


class Billing(MemoryChannel):
    hot_unit_bytes = 5 << 10
    hot_max_bytes = 128 << 10
    hot_overhead_bytes = 512


@pytest.mark.parametrize(
    "at_most,units", [(1, 1), (5 << 10, 1), (10_239, 1), (10_240, 2), (1 << 20, 25)]
)
def test_a_message_has_whole_units_and_leaves_room_for_what_is_no_event(
    at_most: int, units: int
) -> None:
    assert message_bytes(Billing(), at_most) == units * (5 << 10) - 512


@pytest.mark.parametrize(
    "kind,unit,most",
    [(GreengrassChannel, 5 << 10, 128 << 10), (IotEdgeChannel, 4 << 10, 256 << 10)],
)
def test_channels_know_what_their_vendor_bills_and_takes(
    kind: type[Channel], unit: int, most: int
) -> None:
    assert (kind.hot_unit_bytes, kind.hot_max_bytes) == (unit, most)


def test_pub_sub_bills_requests_by_a_kilobyte() -> None:
    assert PubSubSender.unit_bytes == 1000
    assert PubSubSender.max_bytes * 4 / 3 < 10_000_000


def test_the_first_message_is_small_and_still_whole_units() -> None:
    assert first_bytes(Billing()) == 5 << 10
    assert first_bytes(MemoryChannel()) == 4096


def test_events_that_were_chosen_make_one_message_of_whole_units() -> None:
    waiting = [(number, alarm(f"rule-{number}", "x" * 300)) for number in range(100)]
    room = message_bytes(Billing(), 4 * (5 << 10))
    events = [event for _, event in chosen(waiting, room)]
    (message,) = packed(events, Billing.hot_max_bytes)
    topic = 256
    assert 3 * (5 << 10) < len(message) + topic <= 4 * (5 << 10)


def test_the_first_event_is_chosen_however_long_it_is() -> None:
    waiting = [(1, alarm("long", "x" * 9000)), (2, alarm("short"))]
    assert [number for number, _ in chosen(waiting, 1000)] == [1]


def test_an_alarm_that_no_message_holds_goes_with_its_text_cut() -> None:
    long = new_event(
        Alarm(rule="warm", message="x" * 200_000, severity="critical", values={"a": 1.0})
    )
    short = fitted(long, 8000)
    assert len(encode(short)) <= 8000
    assert (short.id, short.time, short.type) == (long.id, long.time, long.type)
    data = short.payload()
    assert isinstance(data, Alarm)
    assert (data.rule, data.severity) == ("warm", "critical")
    assert data.message.endswith("…")


def test_a_health_event_is_cut_likewise() -> None:
    data = fitted(new_event(HealthEvent(what="crashed", message="é" * 200_000)), 8000).payload()
    assert isinstance(data, HealthEvent)
    assert data.what == "crashed"
    assert len(data.message) == 512


def test_what_fits_and_what_is_no_alarm_stays_as_it_is() -> None:
    for event in (alarm("warm"), health("started")):
        assert fitted(event, 8000) is event
    other = metric(1.0)
    assert fitted(other, 10) is other
