"""How hot events are packed that somebody received for a device."""

from __future__ import annotations

import pytest

from edgefleet.interfaces.stored_telemetry import MAX_HOT_MESSAGE, hot_events, hot_messages
from edgefleet.protocol.event import Alarm, new_event
from edgefleet.testing.kit import samples

WHOLE = (1 << 20) - 1024  # bytes of a message that fill an event almost


@pytest.mark.parametrize(
    "count, size, messages", [(0, 1, 0), (1, 1, 1), (700, 2000, 4), (3, WHOLE, 3)]
)
def test_messages_are_few_and_each_can_be_read(count: int, size: int, messages: int) -> None:
    text = "x" * size
    sent = [
        new_event(Alarm(rule=f"rule-{number}", message=text), time=samples.MOMENT)
        for number in range(count)
    ]
    packed = list(hot_messages(sent))
    assert len(packed) == messages
    assert max(map(len, packed), default=0) < MAX_HOT_MESSAGE
    assert [event for message in packed for event in hot_events(message, "here")] == sent
