"""Following for months: each arrival once, and no more held than what can come again."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, BinaryIO

import pytest

from edgefleet.interfaces import following
from edgefleet.interfaces.following import Arrivals, Known
from edgefleet.interfaces.telemetry import Telemetry
from edgefleet.protocol.segment import SegmentName, write_segment
from edgefleet.testing.kit import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from edgefleet.protocol.event import Event

FEW = 20


@pytest.fixture(autouse=True)
def _few_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "REMEMBERED", FEW)


class Keeping(Telemetry):
    """Telemetry that keeps what a test has put there, and gives hot events for one look."""

    provider = "memory"

    def __init__(self) -> None:
        self.segments: dict[SegmentName, list[Event]] = {}
        self.hot: list[Event] = []

    def put(self, name: str, *events: Event) -> None:
        self.segments[_named(name)] = list(events)

    def _segments(self) -> Iterator[SegmentName]:
        return iter(tuple(self.segments))

    def _open_file(self, device: str, path: str) -> BinaryIO:
        found = next(events for name, events in self.segments.items() if name.below_device == path)
        stream = io.BytesIO()
        write_segment(found, stream)
        stream.seek(0)
        return stream

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        for event in self.hot:
            yield "a", event


def _named(name: str) -> SegmentName:
    return SegmentName(day=samples.MOMENT.date(), device="a", model="digits", id=name)


def _held(arrivals: Arrivals) -> int:
    return sum(len(each) for each in vars(arrivals).values() if isinstance(each, Known))


def _look(arrivals: Arrivals) -> list[str]:
    return [event.id for event in arrivals.until_quiet(0, 0)]


def test_what_months_brought_is_given_once_and_not_held() -> None:
    telemetry = Keeping()
    arrivals = Arrivals(telemetry.query())
    sent, given, held = [], [], []
    for turn in range(30):
        hot, cold = (
            [make(number) for number in range(10)] for make in (samples.alarm, samples.prediction)
        )
        telemetry.hot = hot  # those before have left the look's window
        telemetry.segments.pop(_named(str(turn - 3)), None)  # retention
        telemetry.put(str(turn), *cold)
        sent += [event.id for event in (*hot, *cold)]
        given += _look(arrivals)
        held.append(_held(arrivals))
    assert sorted(given) == sorted(sent)
    assert max(held) <= 3 * (FEW + 10)


def test_what_is_still_there_is_known_however_much_it_is() -> None:
    telemetry = Keeping()
    arrivals = Arrivals(telemetry.query())
    telemetry.hot = [samples.alarm(number) for number in range(5 * FEW)]
    for number in range(5 * FEW):
        telemetry.put(str(number), samples.prediction(number))
    assert len(_look(arrivals)) == 10 * FEW
    for _ in range(3):
        assert _look(arrivals) == []


def test_what_arrives_again_is_told_from_what_is_late() -> None:
    telemetry = Keeping()
    arrivals = Arrivals(telemetry.query())
    unheard = samples.alarm(0)  # its device wasn't told that it arrived
    telemetry.hot = [unheard]
    assert _look(arrivals) == [unheard.id]
    telemetry.hot = [samples.alarm(number) for number in range(FEW - 1)]
    assert len(_look(arrivals)) == FEW - 1
    late = samples.alarm(0)
    telemetry.hot = [unheard, late]
    assert _look(arrivals) == [late.id]


def test_many_predictions_dont_make_an_alarm_new() -> None:
    telemetry = Keeping()
    arrivals = Arrivals(telemetry.query())
    telemetry.hot = [alarm := samples.alarm(0)]
    assert _look(arrivals) == [alarm.id]
    telemetry.hot = [samples.alarm(1)]
    _look(arrivals)
    for number in range(5):
        telemetry.put(str(number), *(samples.prediction(second) for second in range(FEW)))
        _look(arrivals)
    telemetry.hot = [alarm]
    assert _look(arrivals) == []


def test_segments_that_were_away_arent_new_when_they_are_back() -> None:
    """A fleet's folder whose disk isn't mounted for a while looks empty."""
    telemetry = Keeping()
    arrivals = Arrivals(telemetry.query())
    for number in range(3 * FEW):
        telemetry.put(str(number), samples.prediction(number))
    assert len(_look(arrivals)) == 3 * FEW
    away, telemetry.segments = telemetry.segments, {}
    assert _look(arrivals) == []
    telemetry.segments = away
    assert _look(arrivals) == []
