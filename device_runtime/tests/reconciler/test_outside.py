"""How long pointers take, by the clocks of both sides."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from device_runtime.tests.support import FLEET, MemoryChannel
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.pointer import Pointer
from edgefleet_runtime.reconciler.outside import Outside

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def pointer(number: int, issued: datetime) -> Pointer:
    return Pointer(
        fleet=FLEET,
        epoch=1,
        number=number,
        current=digest_of(b"release"),
        sources=(),
        issued=issued,
    )


def looking(channel: MemoryChannel, *pointers: Pointer | bytes) -> list[float | None]:
    """What is known of the lag after each pointer, at `NOW`."""
    outside, found = Outside(channel, now=lambda: NOW), []
    outside.look()
    for each in pointers:
        channel.offer(each)
        outside.look()
        outside.look()
        found.append(outside.lag_s)
    return found


def test_a_pointer_that_comes_is_measured_once() -> None:
    first = pointer(1, NOW - timedelta(seconds=42.5))
    assert looking(MemoryChannel(), first) == [42.5]


def test_a_pointer_that_was_there_at_the_start_is_not_measured() -> None:
    channel = MemoryChannel()
    channel.offer(pointer(1, NOW - timedelta(days=90)))
    later = pointer(2, NOW - timedelta(seconds=60))
    assert looking(channel) == []
    assert looking(channel, channel.latest or b"", later) == [None, 60]


def test_clocks_that_differ_make_no_time_negative() -> None:
    assert looking(MemoryChannel(), pointer(1, NOW + timedelta(seconds=5))) == [0]


def test_what_is_no_pointer_leaves_the_last_measurement() -> None:
    first = pointer(1, NOW - timedelta(seconds=3))
    assert looking(MemoryChannel(), first, b"damaged") == [3, 3]
