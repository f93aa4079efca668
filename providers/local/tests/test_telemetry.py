from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from edgefleet.errors import NotFoundError
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Event
from edgefleet.protocol.segment import SegmentName, write_segment
from edgefleet.testing.kit import samples
from edgefleet_local.telemetry import LocalTelemetry


@pytest.fixture
def telemetry(home: Path) -> LocalTelemetry:
    return LocalTelemetry(home)


def _segment(home: Path, device: str, events: Iterable[Event], name: str = "1") -> Path:
    day = date(2026, 11, 21)
    path = home / SegmentName(day=day, device=device, model="digits", id=name).path
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        write_segment(events, stream)
    return path


def _hot(home: Path, device: str, *lines: bytes) -> Path:
    path = home / "devices" / device / "hot" / "2026-11-21.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def _line(event: Event) -> bytes:
    return encode(event) + b"\n"


def test_a_fleet_without_events_has_none(telemetry: LocalTelemetry) -> None:
    assert list(telemetry.query()) == []


def test_events_are_attributed_to_the_folder_they_lie_in(
    telemetry: LocalTelemetry, home: Path
) -> None:
    _segment(home, "cam-1", [samples.prediction(1)])
    _segment(home, "cam-2", [samples.prediction(2), samples.prediction(3)])
    _hot(home, "cam-1", _line(samples.alarm(4)))
    assert [event.device for event in telemetry.query(kind="prediction")] == [
        "cam-1", "cam-2", "cam-2",
    ]  # fmt: skip
    assert [event.device for event in telemetry.query(kind="alarm")] == ["cam-1"]
    assert len(list(telemetry.query(device="cam-2"))) == 2


def test_a_damaged_segment_is_set_aside(telemetry: LocalTelemetry, home: Path) -> None:
    _segment(home, "cam-1", [samples.prediction(1)])
    damaged = _segment(home, "cam-2", [samples.prediction(n) for n in range(50)])
    damaged.write_bytes(damaged.read_bytes()[:-20])
    query = telemetry.query()
    with pytest.warns(RuntimeWarning, match="set aside"):
        devices = {event.device for event in query}
    assert "cam-1" in devices
    assert list(query.unreadable) == [damaged.relative_to(home).as_posix()]
    assert "1 segments set aside" in repr(query)


def test_links_lead_nowhere(telemetry: LocalTelemetry, home: Path, tmp_path: Path) -> None:
    honest = _segment(home, "honest", [samples.prediction(1)])
    outside = _segment(tmp_path, "outside", [samples.prediction(2)])
    thief = home / "devices" / "thief" / "segments" / "date=2026-11-21" / "model=digits"
    thief.mkdir(parents=True)
    (thief / "1.ndjson.zst").symlink_to(honest)
    (thief.parent / "model=other").symlink_to(outside.parent)
    (home / "devices" / "ghost").symlink_to(home / "devices" / "honest")
    hot = _hot(home, "honest", _line(samples.alarm(3)))
    (home / "devices" / "thief" / "hot").mkdir()
    (home / "devices" / "thief" / "hot" / "2026-11-21.ndjson").symlink_to(hot)
    assert {event.device for event in telemetry.query()} == {"honest"}


def test_stray_files_are_no_segments(telemetry: LocalTelemetry, home: Path) -> None:
    path = _segment(home, "cam-1", [samples.prediction(1)])
    path.with_name(".2.ndjson.zst.partial").write_bytes(b"half")
    (home / "devices" / "cam-1" / "segments" / "date=tomorrow" / "model=x").mkdir(parents=True)
    (home / "devices" / "file").write_bytes(b"")
    (home / "devices" / "cam-1" / "hot").write_bytes(b"")
    assert len(list(telemetry.query())) == 1


def test_lines_that_a_crash_tore_are_left_out(
    telemetry: LocalTelemetry, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, torn = _line(samples.alarm(1)), _line(samples.alarm(2))[:40]
    _hot(home, "cam-1", whole, torn + b"\n", b"\xff\n", _line(samples.alarm(3)), torn)
    with caplog.at_level(logging.WARNING):
        assert len(list(telemetry.query(kind="alarm"))) == 2
    assert len(caplog.records) == 2


def test_a_line_without_end_takes_no_memory(telemetry: LocalTelemetry, home: Path) -> None:
    _hot(home, "cam-1", _line(samples.alarm(1)), b"x" * (3 << 20))
    assert len(list(telemetry.query(kind="alarm"))) == 1


def test_following_reads_days_that_are_over_no_more(
    telemetry: LocalTelemetry, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a fleet that is followed for months, a look must not take longer each day."""
    long_ago = time.time() - 30 * 86_400
    over = _hot(home, "cam-1", b"no event\n", _line(samples.alarm(1)))
    over = over.rename(over.with_name("2026-01-02.ndjson"))
    os.utime(over, (long_ago, long_ago))
    following = telemetry.follow(kind="alarm", poll_s=0, timeout_s=0)
    today = over.with_name(f"{datetime.now(UTC):%Y-%m-%d}.ndjson")
    today.write_bytes(_line(new := samples.alarm(2)))
    assert [event.id for event in following] == [new.id]
    assert not caplog.records
    assert len(list(telemetry.query(kind="alarm"))) == 2
    assert len(caplog.records) == 1


def test_a_device_whose_clock_is_wrong_is_followed(telemetry: LocalTelemetry, home: Path) -> None:
    following = telemetry.follow(kind="alarm", poll_s=0, timeout_s=0)
    day = _hot(home, "cam-1", _line(new := samples.alarm(1)))
    day.rename(day.with_name("1970-01-01.ndjson"))
    assert [event.id for event in following] == [new.id]


def test_a_link_gives_no_device_another_s_samples(
    telemetry: LocalTelemetry, home: Path, tmp_path: Path
) -> None:
    digest = digest_of(b"theirs")
    file = home / "devices" / "honest" / "samples" / "sha256" / hex_of(digest)
    file.parent.mkdir(parents=True)
    file.write_bytes(b"theirs")
    assert telemetry.sample("honest", digest) == b"theirs"
    linked = {
        "file": ("samples/sha256", file.name, file),
        "folder": ("samples", "sha256", file.parent),
        "samples": ("", "samples", file.parent.parent),
    }
    for device, (folder, name, target) in linked.items():
        place = home / "devices" / device / folder
        place.mkdir(parents=True)
        (place / name).symlink_to(target)
        with pytest.raises(NotFoundError):
            telemetry.sample(device, digest)
    (home / "devices" / "whole").symlink_to(home / "devices" / "honest")
    with pytest.raises(NotFoundError):
        telemetry.sample("whole", digest)
