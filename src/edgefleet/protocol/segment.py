"""Segment: many events in one file, zstd over newline-delimited JSON, readable in place.

A segment's path carries what a query prunes by, in Hive style:
``devices/<device>/segments/date=2026-11-21/model=digits/<id>.ndjson.zst``. DuckDB reads such
folders as they are, by their documentation Athena, Trino and Spark too; BigQuery doesn't read zstd.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from edgefleet.errors import DocumentError, IntegrityError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import MAX_BYTES as MAX_EVENT_BYTES
from edgefleet.protocol.event import read_event
from edgefleet.protocol.files import naming
from edgefleet.protocol.names import DEVICE_PATTERN, MAX_MODEL_CHARACTERS, MODEL_PATTERN

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgefleet.protocol.event import Event

NO_MODEL = "_none"
_DAMAGED = "fetch it again; if its writer broke it, only what came before the damage is left"
SUFFIX = ".ndjson.zst"
_PATH = re.compile(
    r"\Adevices/(?P<device>[^/]+)/segments/date=(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"/model=(?P<model>[^/]+)/(?P<id>[0-9a-z\-]{1,80})\.ndjson\.zst\Z"
)
_WRITING: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,  # higher ones cost a Pi more than they save
    zstd.CompressionParameter.checksum_flag: 1,
}
# 8 MiB; RFC 8878, 3.1.1.1.2: what every decoder should support
_READING: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
_FEED = 256  # compressed bytes taken at once
_PIECE = 8 << 20  # bytes given at once


class SegmentName(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What a segment's path says. ``model`` is `NO_MODEL` for events that concern none."""

    day: date
    device: str
    model: str
    id: str

    @property
    def below_device(self) -> str:
        """Path below the device's own prefix: what a device may write."""
        return f"segments/date={self.day.isoformat()}/model={self.model}/{self.id}{SUFFIX}"

    @property
    def path(self) -> str:
        """Path below the fleet's prefix."""
        return f"devices/{self.device}/{self.below_device}"


def parse_segment_path(path: str) -> SegmentName | None:
    """Read a segment's path, or None when it is none."""
    match = _PATH.match(path)
    if match is None:
        return None
    model = match["model"]
    named = re.match(MODEL_PATTERN, model) and len(model) <= MAX_MODEL_CHARACTERS
    if not re.match(DEVICE_PATTERN, match["device"]) or not (named or model == NO_MODEL):
        return None
    try:
        day = date.fromisoformat(match["date"])
    except ValueError:
        return None
    return SegmentName(day=day, device=match["device"], model=model, id=match["id"])


def write_segment(events: Iterable[Event], to: BinaryIO) -> int:
    """Write events as one segment and return how many there were. ``to`` stays open."""
    count = 0
    compressor = zstd.ZstdCompressor(options=_WRITING)
    for event in events:
        line = encode(event, max_bytes=MAX_EVENT_BYTES)
        if b"\n" in line:  # data is kept as its writer formatted it, but a line is a line
            line = msgspec.json.format(line, indent=-1)
        to.write(compressor.compress(line + b"\n"))
        count += 1
    to.write(compressor.flush())
    return count


def read_segment(stream: BinaryIO, *, name: str = "segment") -> Iterator[Event]:
    """Yield the events of a segment, in some 20 MB of memory at most.

    Events ahead of a damage are yielded before the error.

    Raises:
        IntegrityError: the compressed stream is damaged or cut short.
        DocumentError: a line is no event, or longer than one may be.
    """
    for number, line in enumerate(_lines(stream, name), 1):
        with naming(f"{name}, line {number}"):
            if len(line) > MAX_EVENT_BYTES:
                msg = f"over the limit of {MAX_EVENT_BYTES} bytes"
                raise DocumentError(msg)
            yield read_event(line)


def _lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    rest = b""
    for piece in _decompressed(stream, name):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > MAX_EVENT_BYTES:
            yield rest  # too long already: the caller refuses it
    if rest:
        msg = f"{name}: the last line is cut short"
        raise IntegrityError(msg, cure=_DAMAGED)


def _decompressed(stream: BinaryIO, name: str) -> Iterator[bytes]:
    # Not ZstdFile: a file may end within a frame and be taken for whole.
    frame, data = zstd.ZstdDecompressor(options=_READING), b""
    complete = False
    while data := data or stream.read(_FEED):
        if complete:
            frame, complete = zstd.ZstdDecompressor(options=_READING), False
        try:
            yield frame.decompress(data, _PIECE)
            while not (frame.eof or frame.needs_input):
                yield frame.decompress(b"", _PIECE)
        except zstd.ZstdError as error:
            msg = f"{name} is damaged: {error}"
            raise IntegrityError(msg, cure=_DAMAGED) from error
        complete, data = frame.eof, frame.unused_data
    if not complete:
        msg = f"{name} is cut short"
        raise IntegrityError(msg, cure=_DAMAGED)
