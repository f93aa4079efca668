"""Segments: what a path says, what a file holds, and how damage shows."""

from __future__ import annotations

import io
import json
from datetime import date

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import DocumentError, IntegrityError, LimitExceededError
from edgefleet.protocol import segment as s
from edgefleet.protocol.event import MAX_BYTES, Event, HealthEvent, Metric, new_event, read_event
from tests.contract import samples
from tests.protocol import strategies

EVENTS = list(samples.EVENTS.values())


def written(events: list[Event]) -> bytes:
    to = io.BytesIO()
    assert s.write_segment(events, to) == len(events)
    return to.getvalue()


def read(data: bytes) -> list[Event]:
    return list(s.read_segment(io.BytesIO(data), name="0001.ndjson.zst"))


def compressed(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(text)


SEGMENT = written(EVENTS)


# ------------------------------------------------------------------------------------------ content


@given(st.lists(strategies.events, max_size=5))
def test_segment_gives_back_its_events_in_order(events: list[Event]) -> None:
    assert read(written(events)) == events


def test_segment_is_zstd_over_one_event_a_line() -> None:
    lines = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(SEGMENT)).readall().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [event.id for event in EVENTS]


def test_event_with_formatted_data_still_takes_one_line() -> None:
    pretty = read_event(msgspec.json.format(msgspec.json.encode(EVENTS[0]), indent=2))
    assert b"\n" in bytes(pretty.data)
    [seen] = read(written([pretty]))
    assert seen.payload() == EVENTS[0].payload()


def test_segments_one_after_another_read_as_one() -> None:
    assert read(SEGMENT + SEGMENT) == EVENTS + EVENTS


def test_long_segment_reads_whole() -> None:
    events = [new_event(Metric(name="loss", value=float(i))) for i in range(5_000)]
    assert read(written(events)) == events


def test_stream_stays_open() -> None:
    stream = io.BytesIO(SEGMENT)
    list(s.read_segment(stream))
    assert not stream.closed


def test_event_over_the_limit_is_not_written() -> None:
    huge = new_event(HealthEvent(what="x", message="y" * MAX_BYTES))
    with pytest.raises(LimitExceededError, match="1048576 are allowed"):
        written([huge])


# ------------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("size", range(0, len(SEGMENT), 37))
def test_segment_cut_short_is_noticed(size: int) -> None:
    with pytest.raises(IntegrityError, match=r"0001\.ndjson\.zst is cut short"):
        read(SEGMENT[:size])


def test_segment_cut_between_blocks_is_noticed() -> None:
    # A frame of many blocks, cut where everything so far is whole lines: no line tells.
    to = io.BytesIO()
    line = msgspec.json.encode(EVENTS[4]) + b"\n"
    with zstandard.ZstdCompressor().stream_writer(to, closefd=False) as stream:
        for _ in range(3):
            stream.write(line)
            stream.flush(zstandard.FLUSH_BLOCK)
        whole_lines = to.getvalue()
    with pytest.raises(IntegrityError, match="is cut short"):
        read(whole_lines)


@given(st.integers(0, len(SEGMENT) * 8 - 1))
def test_flipped_bit_never_gives_other_events(bit: int) -> None:
    damaged = bytearray(SEGMENT)
    damaged[bit // 8] ^= 1 << bit % 8
    try:
        seen = read(bytes(damaged))
    except (IntegrityError, DocumentError):
        return
    assert seen == EVENTS  # a bit that zstd doesn't read


@pytest.mark.parametrize("data", [b"", b"not zstd", b"\x28\xb5\x2f\xfd", b'{"id":"1"}\n'])
def test_what_is_no_segment_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"^0001\.ndjson\.zst is (damaged|cut short)"):
        read(data)


def test_line_that_is_no_event_is_named_and_those_before_it_are_kept() -> None:
    good = msgspec.json.encode(EVENTS[0]) + b"\n"
    reader = s.read_segment(io.BytesIO(compressed(good + b"{}\n" + good)), name="x")
    assert next(reader) == EVENTS[0]
    with pytest.raises(DocumentError, match=r"^x, line 2: malformed event"):
        next(reader)


def test_last_line_without_its_end_is_refused() -> None:
    with pytest.raises(IntegrityError, match="the last line is cut short"):
        read(compressed(msgspec.json.encode(EVENTS[0])))


@pytest.mark.parametrize("end", [b"\n", b""])
def test_line_over_the_limit_is_refused(end: bytes) -> None:
    with pytest.raises(DocumentError, match=f"line 1: over the limit of {MAX_BYTES} bytes"):
        read(compressed(b"x" * (MAX_BYTES + 1) + end))


def test_line_of_exactly_the_limit_is_parsed() -> None:
    with pytest.raises(DocumentError, match="malformed event"):
        read(compressed(b"x" * MAX_BYTES + b"\n"))


def test_bomb_is_refused_after_some_megabytes() -> None:
    bomb = compressed(b"\0" * (256 << 20))
    stream = io.BytesIO(bomb)
    with pytest.raises(DocumentError, match="over the limit"):
        list(s.read_segment(stream))
    assert stream.tell() < len(bomb) / 10


def test_frame_that_asks_for_a_larger_window_than_devices_write_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    to = io.BytesIO()
    with zstandard.ZstdCompressor(compression_params=parameters).stream_writer(
        to, closefd=False
    ) as stream:
        stream.write(b"{}\n")
    with pytest.raises(IntegrityError, match="damaged"):
        read(to.getvalue())


# -------------------------------------------------------------------------------------------- paths

names = st.builds(
    s.SegmentName,
    day=st.dates(),
    device=strategies.devices,
    model=strategies.models | st.just(s.NO_MODEL),
    id=st.from_regex(r"\A[0-9a-z\-]{1,80}\Z"),
)


@given(names)
def test_path_says_what_the_name_says(name: s.SegmentName) -> None:
    assert s.parse_segment_path(name.path) == name


def test_path_is_partitioned_as_query_engines_expect() -> None:
    below = "segments/date=2026-11-21/model=digits/0001-a1b2.ndjson.zst"
    assert samples.SEGMENT.below_device == below
    assert samples.SEGMENT.path == f"devices/cam-07/{below}"


def test_segments_sort_by_day_first() -> None:
    late, early = (
        s.SegmentName(day=date(2026, 1, day), device=device, model="m", id="1")
        for day, device in ((2, "a"), (1, "z"))
    )
    assert sorted([late, early]) == [early, late]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "devices/../segments/date=2026-11-21/model=m/1.ndjson.zst",
        "devices/./segments/date=2026-11-21/model=m/1.ndjson.zst",
        "devices/a/b/segments/date=2026-11-21/model=m/1.ndjson.zst",
        "devices/-a/segments/date=2026-11-21/model=m/1.ndjson.zst",
        "devices/a/segments/date=2026-02-30/model=m/1.ndjson.zst",
        "devices/a/segments/date=2026-1-1/model=m/1.ndjson.zst",
        "devices/a/segments/date=\u0662\u0660\u0662\u0666-11-21/model=m/1.ndjson.zst",
        "devices/a/segments/date=2026-11-21/model=../1.ndjson.zst",
        "devices/a/segments/date=2026-11-21/model=M/1.ndjson.zst",
        "devices/a/segments/date=2026-11-21/model=m/../1.ndjson.zst",
        "devices/a/segments/date=2026-11-21/model=m/.ndjson.zst",
        "devices/a/segments/date=2026-11-21/model=m/1.ndjson",
        "devices/a/segments/date=2026-11-21/model=m/1.ndjson.zst.partial",
        "devices/a/segments/date=2026-11-21/model=m/1.ndjson.zst\n",
        "x/devices/a/segments/date=2026-11-21/model=m/1.ndjson.zst",
        "devices/a/report.json",
    ],
)
def test_path_that_is_no_segment_s_is_none(path: str) -> None:
    assert s.parse_segment_path(path) is None
