"""Events as a data frame, whatever a foreign device wrote."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from edgefleet.interfaces.telemetry import Telemetry
from edgefleet.protocol.event import Alarm, Event, new_event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.protocol.segment import SegmentName


class HotOnly(Telemetry):
    """Telemetry that keeps a few hot events and no segments."""

    provider = "memory"

    def __init__(self, *events: Event) -> None:
        self._events = events

    def _segments(self) -> Iterator[SegmentName]:
        return iter(())

    def _open_file(self, device: str, path: str) -> BinaryIO:
        raise FileNotFoundError(path)

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        return (("cam-1", event) for event in self._events)


def test_data_that_is_no_object_has_a_column_of_its_own() -> None:
    foreign = Event(
        id="f",
        source="/elsewhere",
        type="com.example.reading",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        data=msgspec.Raw(b"[1, 2]"),
    )
    frame = HotOnly(new_event(Alarm(rule="hot", message="too hot")), foreign).query().to_pandas()
    assert frame.set_index("id").loc["f", "data"] == [1, 2]
    assert "too hot" in set(frame["message"])
    assert set(frame["device"]) == {"cam-1"}
