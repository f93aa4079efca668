"""Messages of devices, read by the unmodified azure-eventhub client from the mock's endpoint."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.testing.waiting import eventually
from edgefleet_azure import events
from edgefleet_azure.cloud.eventhubs import EventHubs
from edgefleet_azure.events import Arrival, EventSource, arrivals
from providers.azure.tests.cloud.event_hubs import KEY, listening, source_of

CLIENT = "azure.eventhub._eventprocessor.event_processor"
BUSY = "com.microsoft:server-busy"
# The client leaves the socket of a connection that broke to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")


@pytest.fixture(autouse=True)
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(events, "_BACKOFF_S", 0.01)
    monkeypatch.setattr(events, "_TURN_S", 0.01)
    # pytest keeps what is logged, and errors in it their connections, for longer than the test.
    monkeypatch.setattr(logging.getLogger(CLIENT), "disabled", True)
    before = {*threading.enumerate()}
    yield
    eventually(lambda: {*threading.enumerate()} <= before)  # no reading leaves a thread behind
    gc.collect()  # while what it warns of is left out


@pytest.fixture
def hubs(tmp_path: Path) -> Iterator[EventHubs]:
    with listening(tmp_path) as found:
        yield found


def send(hubs: EventHubs, *bodies: bytes, device: str = "cam-1") -> None:
    for body in bodies:
        hubs.append(device, "edgefleet", {"kind": "hot"}, body)


def bodies(source: EventSource, **options: Any) -> list[bytes]:
    return [arrival.body for arrival in arrivals(source, **options)]


def test_an_empty_endpoint_has_nothing(hubs: EventHubs) -> None:
    assert bodies(source_of(hubs)) == []


def test_messages_of_a_device_come_in_their_order(hubs: EventHubs) -> None:
    sent = [f"{number}".encode() for number in range(700)]
    send(hubs, *sent)
    assert bodies(source_of(hubs)) == sent


def test_messages_of_every_partition_are_read(hubs: EventHubs) -> None:
    for number in range(10):
        send(hubs, b"x", device=f"cam-{number}")
    found = {arrival.device for arrival in arrivals(source_of(hubs))}
    assert found == {f"cam-{number}" for number in range(10)}


def test_a_message_tells_who_sent_it_and_when(hubs: EventHubs) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    send(hubs, b"x")
    [found] = arrivals(source_of(hubs))
    assert found == Arrival("cam-1", "edgefleet", found.enqueued, b"x")
    assert found.enqueued is not None
    assert found.enqueued >= before


def test_a_message_larger_than_a_frame_arrives_whole(hubs: EventHubs) -> None:
    send(hubs, b"y" * 250_000)
    [body] = bodies(source_of(hubs))
    assert (len(body), set(body)) == (250_000, {ord("y")})


def test_what_came_before_the_time_asked_for_is_not_read(tmp_path: Path) -> None:
    now = [1_800_000_000.0]
    with listening(tmp_path, clock=lambda: now[0]) as hubs:
        send(hubs, b"old")
        now[0] += 60
        send(hubs, b"new")
        since = datetime.fromtimestamp(1_800_000_030, UTC)
        assert bodies(source_of(hubs), since=since) == [b"new"]


def test_what_is_older_than_the_retention_is_gone(tmp_path: Path) -> None:
    now = [1_700_000_000.0]
    with listening(tmp_path, clock=lambda: now[0], retention_s=3600) as hubs:
        send(hubs, b"old")
        now[0] += 3601
        send(hubs, b"new")
        assert bodies(source_of(hubs)) == [b"new"]


def test_what_comes_while_it_is_read_is_left_for_the_next_time(hubs: EventHubs) -> None:
    send(hubs, b"1", b"2")
    reading = arrivals(source_of(hubs))
    first = next(reading)
    send(hubs, b"3")
    assert [first.body, *(arrival.body for arrival in reading)] == [b"1", b"2"]
    assert bodies(source_of(hubs)) == [b"1", b"2", b"3"]


def test_a_busy_endpoint_is_asked_again(hubs: EventHubs) -> None:
    send(hubs, b"x")
    hubs.refuse(BUSY, "The server is busy", times=2)
    assert bodies(source_of(hubs)) == [b"x"]


def test_an_endpoint_that_stays_busy_is_throttling(hubs: EventHubs) -> None:
    send(hubs, b"x")
    hubs.refuse(BUSY, "The server is busy", times=100)
    with pytest.raises(ThrottledError):
        bodies(source_of(hubs), attempts=2)


def test_a_link_that_breaks_goes_on_where_it_was(
    hubs: EventHubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_AHEAD", 1)
    sent = [f"{number}".encode() for number in range(2000)]
    send(hubs, *sent)
    reading = arrivals(source_of(hubs))
    first = next(reading).body
    hubs.drop()
    assert [first, *(arrival.body for arrival in reading)] == sent


def test_a_reading_that_is_left_ends_its_link(hubs: EventHubs) -> None:
    send(hubs, *(b"x" for _ in range(1000)))
    reading = arrivals(source_of(hubs))
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert hubs.readers == 0


def test_the_wrong_key_is_refused_and_not_told(hubs: EventHubs) -> None:
    with pytest.raises(AccessDeniedError) as refused:
        bodies(source_of(hubs, key="d3Jvbmc="), attempts=1)
    assert "sig=" not in str(refused.value)
    assert "SharedAccess" not in str(refused.value)


def test_the_endpoint_of_a_hub_takes_no_token_of_entra(hubs: EventHubs) -> None:
    class Entra:
        def get_token(self, *_: str, **__: Any) -> Any:
            from azure.core.credentials import AccessToken

            return AccessToken("eyJ0eXAiOiJKV1QifQ.e30.", 4_000_000_000)

    source = EventSource(f"localhost:{hubs.port}", hubs.name, Entra())
    with pytest.raises(AccessDeniedError):
        bodies(source, attempts=1)


def test_an_event_hub_that_is_not_there_is_told(hubs: EventHubs) -> None:
    with pytest.raises(NotFoundError):
        bodies(source_of(hubs, name="other"), attempts=1)


def test_nobody_listening_is_told(tmp_path: Path) -> None:
    with listening(tmp_path) as hubs:
        source = source_of(hubs)
    with pytest.raises(UnavailableError):
        bodies(source, attempts=1)


def test_an_endpoint_that_goes_away_between_is_told(
    hubs: EventHubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STALLED_S", 3.0)
    monkeypatch.setattr(events, "_AHEAD", 1)
    send(hubs, *(b"x" for _ in range(2000)))
    reading = arrivals(source_of(hubs), attempts=2)
    next(reading)
    hubs.stop()
    with pytest.raises(UnavailableError):
        list(reading)


def test_a_sixth_reader_of_a_partition_is_refused(
    hubs: EventHubs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgefleet_azure.cloud.eventhubs.MAX_READERS", 0)
    send(hubs, b"x")
    with pytest.raises(ThrottledError):
        bodies(source_of(hubs), attempts=1)


def test_a_consumer_group_that_is_not_there_is_told_so(hubs: EventHubs) -> None:
    send(hubs, b"x")
    with pytest.raises(NotFoundError, match="consumer group"):
        bodies(source_of(hubs)._replace(group="theirs"), attempts=1)


def test_no_key_is_shown(hubs: EventHubs) -> None:
    assert KEY not in repr(source_of(hubs))
