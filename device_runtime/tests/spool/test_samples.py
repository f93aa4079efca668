"""Samples in the spool: their files and events wait for the channel, below the cap."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from device_runtime.tests.support import Clock, MemoryChannel
from edgefleet.errors import StorageFullError, UnavailableError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.event import Sample
from edgefleet.protocol.segment import read_segment
from edgefleet_runtime.serve.capture import Capture
from edgefleet_runtime.spool.recorders import SpoolRecorder
from edgefleet_runtime.spool.samples import BLOCK, SampleFiles
from edgefleet_runtime.spool.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

MOMENT = datetime(2026, 11, 21, tzinfo=UTC)
MAX_BYTES = 1 << 20


def capture(number: int, data: bytes) -> Capture:
    return Capture(str(uuid.UUID(int=number)), "digits", "1", MOMENT, {"x": data}, {})


def name_of(data: bytes) -> str:
    return f"samples/sha256/{digest_of(data).partition(':')[2]}"


def spool_of(root: Path, channel: MemoryChannel, clock: Clock | None = None) -> Spool:
    return Spool(root, channel, device="cam-07", max_bytes=MAX_BYTES, clock=clock or Clock())


def test_files_go_before_the_segment_that_names_them(tmp_path: Path) -> None:
    channel, told = MemoryChannel(), list[bool]()
    spool = spool_of(tmp_path, channel)
    SpoolRecorder(spool).record(capture(1, b"abcd"), told.append)
    assert told == []
    spool.finish()
    assert told == [True]
    file, *_ = channel.segments
    [segment] = [name for name in channel.segments if "/model=digits/" in name]
    assert (file, channel.segments[file]) == (name_of(b"abcd"), b"abcd")
    (event,) = read_segment(io.BytesIO(channel.segments[segment]))
    sample = event.payload()
    assert isinstance(sample, Sample)
    assert (event.id, event.time, event.subject) == (capture(1, b"").id, MOMENT, "digits")
    assert sample.inputs == {"x": digest_of(b"abcd")}
    assert not spool.pending


def test_files_wait_for_the_channel_and_outlive_the_process(tmp_path: Path) -> None:
    channel, told = MemoryChannel(), list[bool]()
    channel.fails = UnavailableError("offline")
    spool = spool_of(tmp_path, channel)
    SpoolRecorder(spool).record(capture(1, b"abcd"), told.append)
    spool.finish()
    assert (told, channel.segments, spool.pending) == ([True], {}, True)
    channel.fails = None
    spool.close()
    later = spool_of(tmp_path, channel)
    assert later.pending
    later.recover()
    later.finish()
    assert name_of(b"abcd") in channel.segments
    assert not later.pending


def test_samples_take_half_of_the_cap_and_then_are_refused(tmp_path: Path) -> None:
    channel, told = MemoryChannel(), list[bool]()
    channel.fails = UnavailableError("offline")
    spool = spool_of(tmp_path, channel)
    recorder = SpoolRecorder(spool)
    recorder.record(capture(1, bytes(MAX_BYTES // 2 - 10)), told.append)
    with pytest.raises(StorageFullError):
        recorder.record(capture(2, b"more than ten bytes"), told.append)
    spool.turn()
    assert told == [True]
    assert MAX_BYTES // 2 - 10 <= spool.used_bytes <= MAX_BYTES
    channel.fails = None
    spool.finish()
    recorder.record(capture(3, b"more than ten bytes"), told.append)
    spool.finish()
    assert told == [True, True]


def test_the_same_content_is_kept_once(tmp_path: Path) -> None:
    files = SampleFiles(tmp_path, BLOCK)
    assert files.put(b"abcd") == files.put(b"abcd") == digest_of(b"abcd")
    assert (files.used_bytes, len(files.waiting())) == (BLOCK, 1)
    assert files.find(digest_of(b"abcd")) == files.waiting()[0]
    assert [files.find(other) for other in (digest_of(b""), "sha256:../../x", "")] == [None] * 3
    files.remove(files.waiting()[0])
    assert (files.used_bytes, files.waiting()) == (0, [])


def test_samples_of_a_few_numbers_take_no_more_of_the_disk_than_they_may(tmp_path: Path) -> None:
    """Months offline, a model of four numbers: each file takes a block, and a place in a table."""
    files = SampleFiles(tmp_path, 100 * BLOCK)
    for number in range(100):
        files.put(number.to_bytes(16))
    with pytest.raises(StorageFullError):
        files.put(b"one more")
    found = files.waiting()
    assert sum(path.stat().st_blocks * 512 for path in found) <= files.used_bytes == 100 * BLOCK
    assert SampleFiles(tmp_path, 100 * BLOCK).used_bytes == files.used_bytes
    files.remove(found[0])
    files.put(b"another")


def test_what_a_crash_tore_is_removed(tmp_path: Path) -> None:
    files = SampleFiles(tmp_path, BLOCK)
    files.put(b"abcd")
    torn = files.waiting()[0].parent / ".0000.partial"
    torn.write_bytes(b"half")
    again = SampleFiles(tmp_path, BLOCK)
    assert (again.used_bytes, torn.exists()) == (BLOCK, False)
