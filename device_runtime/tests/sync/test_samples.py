"""Files of samples on their way out: before what names them, and no more work than that takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from device_runtime.tests.sync.rig import Later, Rig, metric
from edgefleet.errors import UnavailableError
from edgefleet.protocol.event import Event
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.spool.samples import blocks
from edgefleet_runtime.sync import cold


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_samples_files_go_ahead_of_the_segment_that_names_them(rig: Rig) -> None:
    rig.samples.put(b"of a sample whose event is still to come")
    named = rig.sample(b"named by the segment")
    rig.turn()
    first, second, third = rig.memory.segments
    assert rig.memory.segments[first] == b"named by the segment"
    assert rig.received == [named.id]
    assert second.startswith("segments/")
    assert third.startswith("samples/")
    assert rig.samples.used_bytes == 0


def test_segments_are_sent_without_a_look_at_each_sample_that_waits(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Months offline leave tens of thousands, and hundreds of segments: each look took a second."""
    look, lists = rig.samples.waiting, list[int]()

    def waiting() -> list[Path]:
        lists.append(len(rig.received))
        return look()

    monkeypatch.setattr(rig.samples, "waiting", waiting)
    rig.samples.put(b"of a sample whose event is still to come")
    named = rig.sample(b"named by the segment")
    rig.turn()
    assert rig.received == [named.id]
    assert 0 not in lists, "listed before the segment had gone"
    assert rig.samples.used_bytes == 0


def test_without_samples_no_segment_is_read_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []

    def noted(stream: BinaryIO) -> Iterator[Event]:
        read.append(stream)
        return read_segment(stream)

    monkeypatch.setattr(cold, "read_segment", noted)
    rig.store.events = [metric(float(number)) for number in range(3)]
    rig.turn()
    assert (len(rig.memory.segments), read) == (1, [])


def test_a_sample_that_room_was_made_of_meanwhile_is_no_trouble(tmp_path: Path) -> None:
    later = Later()
    rig = Rig(tmp_path, start=later)
    rig.samples.put(b"data")
    rig.turn()
    later.run()
    (path,) = rig.samples.waiting()
    rig.samples.remove(path)
    rig.turn(2)
    assert (rig.sync.state.files, rig.sync.state.why) == (1, None)


def test_a_sample_that_can_not_go_holds_its_segment_back(rig: Rig) -> None:
    rig.sample(b"data")

    def upload(name: str, path: Path) -> None:
        if name.startswith("samples/"):
            raise UnavailableError("away")
        raise AssertionError(f"{name} went ahead of {path}")

    rig.memory.upload = upload  # type: ignore[method-assign]
    rig.turn(2)
    assert rig.sync.state.why == "link"


def test_a_lean_link_leaves_samples_where_they_are(tmp_path: Path) -> None:
    rig = Rig(tmp_path, metered="yes")
    rig.follow(metered="lean")
    rig.sample(b"large")
    plain = metric(1.0)
    rig.store.events.append(plain)
    rig.turn(4)
    assert rig.received == [plain.id]
    assert len(rig.memory.segments) == 1
    assert rig.samples.used_bytes == blocks(5)
