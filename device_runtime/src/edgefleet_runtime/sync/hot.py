"""Alarms and health events on their way: packed to what a channel bills and takes.

Rules kept here:

- The newest alarm is in the first message. It waits for nothing: what else waits fills the units
  that are paid for anyway, and no message is held back to be filled.
- An alarm that is longer than a message goes with its text cut, because it could never go whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Alarm, HealthEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.channels.base import Channel

LEAST_BYTES = 4096  # of a first message, where nobody bills by a unit
MAX_EVENTS = 512  # of one message
MAX_TEXT = 512  # characters that are left of a text


def message_bytes(channel: Channel, at_most: int) -> int:
    """Bytes for events in one message of at most so many: whole units, and one at least."""
    units = max(1, min(at_most, channel.hot_max_bytes) // channel.hot_unit_bytes)
    whole = min(units * channel.hot_unit_bytes, channel.hot_max_bytes)
    return max(1, whole - channel.hot_overhead_bytes)


def first_bytes(channel: Channel) -> int:
    """Bytes of the smallest message that is worth a call: the units that hold `LEAST_BYTES`."""
    return -(-LEAST_BYTES // channel.hot_unit_bytes) * channel.hot_unit_bytes


def chosen(waiting: Sequence[tuple[int, Event]], room: int) -> list[tuple[int, Event]]:
    """As many of the first events as fit, with a byte between two; the first in any case."""
    found: list[tuple[int, Event]] = []
    for number, event in waiting:
        room -= len(encode(event)) + 1
        if found and room < 0:
            break
        found.append((number, event))
    return found


def fitted(event: Event, max_bytes: int) -> Event:
    """The event, or one of the same id with its text cut, where it has more bytes than that.

    What isn't an alarm or a health event of ours stays as it is.
    """
    if len(encode(event)) <= max_bytes:
        return event
    try:
        data = event.payload()
    except EdgeFleetError:
        return event
    if isinstance(data, Alarm):
        short: Alarm | HealthEvent = msgspec.structs.replace(
            data, message=_cut(data.message), values={}
        )
    elif isinstance(data, HealthEvent):
        short = msgspec.structs.replace(data, message=_cut(data.message))
    else:
        return event
    return msgspec.structs.replace(event, data=msgspec.Raw(encode(short)))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
