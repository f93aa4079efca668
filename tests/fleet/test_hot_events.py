"""Hot events in whatever order a backend gives them, read from a time on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from edgefleet.interfaces.stored_telemetry import hot_events
from edgefleet.interfaces.telemetry import CLOCK_SLACK, Telemetry
from edgefleet.protocol.event import Alarm, Event, new_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from edgefleet.protocol.segment import SegmentName


class Mixed(Telemetry):
    """Hot events of several devices as they came, and when each was asked for."""

    provider = "memory"

    def __init__(self, *arrived: tuple[str, Event]) -> None:
        self.arrived = list(arrived)
        self.asked: list[datetime | None] = []

    def _segments(self) -> Iterator[SegmentName]:
        return iter(())

    def _open_file(self, device: str, path: str) -> BinaryIO:
        raise FileNotFoundError(path)

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        self.asked.append(since)
        yield from self.arrived


def alarm(rule: str) -> Event:
    return new_event(Alarm(rule=rule, message="too hot"), time=datetime(2026, 1, 2, tzinfo=UTC))


def test_an_event_that_came_twice_between_others_is_given_once() -> None:
    one, two = alarm("one"), alarm("two")
    telemetry = Mixed(("a", one), ("b", two), ("a", one), ("b", two))
    assert [event.id for event in telemetry.query()] == [one.id, two.id]


def test_two_devices_may_use_the_same_id() -> None:
    event = alarm("one")
    telemetry = Mixed(("a", event), ("b", event))
    assert [str(found.device) for found in telemetry.query()] == ["a", "b"]


def test_a_query_from_a_time_on_reads_what_came_a_little_before_it() -> None:
    telemetry = Mixed()
    since = datetime(2026, 1, 2, tzinfo=UTC)
    assert list(telemetry.query(since=since)) == []
    assert list(telemetry.query()) == []
    assert telemetry.asked == [since - CLOCK_SLACK, None]


def test_following_reads_what_came_lately_and_nothing_older() -> None:
    telemetry = Mixed()
    before = datetime.now(UTC)
    following = telemetry.follow(poll_s=0, timeout_s=60)
    for rule in ("one", "two"):
        telemetry.arrived.append(("a", alarm(rule)))
        next(following)
    first, *others = [moment for moment in telemetry.asked if moment is not None]
    assert first > before - timedelta(minutes=2)
    assert others
    assert all(moment >= first for moment in others)


def test_following_tells_devices_with_the_same_id_apart() -> None:
    event = alarm("one")
    telemetry = Mixed(("a", event))
    following = telemetry.follow(poll_s=0, timeout_s=60)
    telemetry.arrived.append(("b", event))
    assert next(following).device == "b"


def test_what_is_no_event_hides_none_of_its_message(caplog: pytest.LogCaptureFixture) -> None:
    event = alarm("one")
    body = b'{"events":[{"id":1},' + msgspec.json.encode(event) + b"]}"
    assert [found.id for found in hot_events(body, "a message")] == [event.id]
    for noise in (b"", b"[]", b"{}", b'{"events":[{"data":"secret\xff"}]}'):
        assert list(hot_events(noise, "a message")) == []
    assert "left out" in caplog.text
    assert "secret" not in caplog.text


def test_following_gives_what_came_before_its_time_was_up() -> None:
    events = [alarm("one"), alarm("two")]
    telemetry = Mixed()
    following = telemetry.follow(poll_s=0, timeout_s=0)
    telemetry.arrived += [("a", event) for event in events]
    assert list(following) == [
        msgspec.structs.replace(event, source="/devices/a") for event in events
    ]
