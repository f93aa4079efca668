from __future__ import annotations

import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_runtime.tests.support import Clock
from edgefleet.errors import StorageFullError
from edgefleet.protocol.event import Event, HealthEvent, Metric, new_event
from edgefleet.protocol.release import TelemetryPolicy
from edgefleet.protocol.segment import parse_segment_path, read_segment
from edgefleet_runtime.spool.segments import SegmentFiles

POLICY = TelemetryPolicy(segment_max_bytes=1000, segment_max_age_s=60)
DAY = datetime(2026, 11, 21, 12, tzinfo=UTC)


def event(value: float = 1.0, model: str | None = "digits", day: datetime = DAY) -> Event:
    return new_event(Metric(name="m", value=value, model=model), time=day)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(tmp_path: Path, clock: Clock, max_bytes: int = 1 << 20) -> SegmentFiles:
    return SegmentFiles(tmp_path, device="cam-07", max_bytes=max_bytes, clock=clock)


@pytest.fixture
def files(tmp_path: Path, clock: Clock) -> SegmentFiles:
    return opened(tmp_path, clock)


def events_of(files: SegmentFiles) -> list[Event]:
    found: list[Event] = []
    for segment in files.closed():
        with segment.path.open("rb") as stream:
            held = list(read_segment(stream))
        assert len(held) == segment.events
        found += held
    return found


def test_events_come_back_in_order_from_a_closed_segment(files: SegmentFiles) -> None:
    sent = [event(n) for n in range(3)]
    files.append(sent[:2])
    files.append(sent[2:])
    assert files.closed() == []
    assert files.close_all() == 0
    assert events_of(files) == sent


def test_days_and_models_have_segments_of_their_own(files: SegmentFiles) -> None:
    other = DAY.replace(day=22)
    files.append([event(), event(model="faces"), event(model=None), event(day=other)])
    files.close_all()
    names = [parse_segment_path(f"devices/cam-07/{segment.name}") for segment in files.closed()]
    assert {(str(name.day), name.model) for name in names if name} == {
        ("2026-11-21", "digits"),
        ("2026-11-21", "faces"),
        ("2026-11-21", "_none"),
        ("2026-11-22", "digits"),
    }


def test_a_segment_closes_when_it_is_large_enough(files: SegmentFiles) -> None:
    files.append([event()])
    files.close_due(POLICY)
    assert files.closed() == []
    files.append([event() for _ in range(10)])
    files.close_due(POLICY)
    assert [segment.events for segment in files.closed()] == [11]


def test_a_segment_closes_when_it_is_old_enough(files: SegmentFiles, clock: Clock) -> None:
    files.append([event()])
    clock.now += 59
    files.close_due(POLICY)
    assert files.closed() == []
    clock.now += 1
    files.close_due(POLICY)
    assert len(files.closed()) == 1


def test_what_a_killed_process_left_open_is_recovered_without_its_torn_line(
    tmp_path: Path, clock: Clock
) -> None:
    sent = [event(n) for n in range(3)]
    opened(tmp_path, clock).append(sent)
    (path,) = (tmp_path / "open").rglob("*.ndjson")
    path.write_bytes(path.read_bytes()[:-10])
    after = opened(tmp_path, clock)
    assert after.recover() == 1
    assert events_of(after) == sent[:2]
    assert list((tmp_path / "open").rglob("*.ndjson")) == []


def test_damage_in_the_middle_costs_that_line_only(tmp_path: Path, clock: Clock) -> None:
    sent = [event(n) for n in range(3)]
    opened(tmp_path, clock).append(sent)
    (path,) = (tmp_path / "open").rglob("*.ndjson")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\0\0\0\n" + lines[2])
    after = opened(tmp_path, clock)
    assert after.recover() == 1
    assert events_of(after) == [sent[0], sent[2]]


def test_a_process_killed_between_closing_and_removing_repeats_the_same_segment(
    tmp_path: Path, clock: Clock
) -> None:
    files = opened(tmp_path, clock)
    files.append([event()])
    (path,) = (tmp_path / "open").rglob("*.ndjson")
    content = path.read_bytes()
    files.close_all()
    (before,) = files.closed()
    closed = before.path.read_bytes()
    path.write_bytes(content)  # as if it had not come to removing it
    (tmp_path / "closed" / ".half.partial").write_bytes(b"half")
    after = opened(tmp_path, clock)
    after.recover()
    assert after.closed() == [before]
    assert before.path.read_bytes() == closed
    assert not (tmp_path / "closed" / ".half.partial").exists()


def test_over_the_cap_the_oldest_segments_go_and_are_counted(tmp_path: Path, clock: Clock) -> None:
    files = opened(tmp_path, clock)
    for number in range(4):
        files.append([event(number) for _ in range(number + 1)])
        files.close_all()
    sizes = [segment.bytes for segment in files.closed()]
    files.max_bytes = sum(sizes[2:])
    lost = files.trim()
    left = files.closed()
    assert lost + sum(segment.events for segment in left) == 10
    assert files.used_bytes() <= files.max_bytes
    assert [segment.events for segment in left] == [3, 4]


def test_a_segment_that_was_removed_leaves_no_folder(files: SegmentFiles, tmp_path: Path) -> None:
    files.append([event()])
    files.close_all()
    files.remove(files.closed()[0])
    assert files.closed() == []
    assert list((tmp_path / "closed" / "segments").iterdir()) == []


def test_an_event_over_the_limit_is_left_out_and_counted(files: SegmentFiles) -> None:
    large = new_event(HealthEvent(what="x", message="x" * (1 << 20), model="digits"), time=DAY)
    assert files.append([event(1), large, event(2)]) == 1
    files.close_all()
    assert [segment.events for segment in files.closed()] == [2]


def test_a_disk_that_takes_no_more_tears_no_line(files: SegmentFiles) -> None:
    files.append([event(1)])
    (segment,) = files._open.values()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment.size + 10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            files.append([event(2)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    files.append([event(3)])
    assert files.close_all() == 0
    assert [e.payload().value for e in events_of(files)] == [1, 3]  # type: ignore[union-attr]


def test_a_segment_that_found_no_room_to_close_stays_open(
    files: SegmentFiles, tmp_path: Path
) -> None:
    files.append([event(1)])
    (path,) = (tmp_path / "open").rglob("*.ndjson")
    (tmp_path / "closed" / f".{path.stem}.partial").symlink_to("/dev/full")
    with pytest.raises(StorageFullError):
        files.close_all()
    files.append([event(2)])
    files.close_all()
    assert len(events_of(files)) == 2


def test_many_open_segments_close_before_they_fill_the_cap(tmp_path: Path, clock: Clock) -> None:
    files = opened(tmp_path, clock, max_bytes=4000)
    files.append([event(model=f"model-{n}") for n in range(12)])
    files.close_due(POLICY)
    assert len(files.closed()) == 12
