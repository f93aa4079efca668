"""Telemetry: the segments and hot events that the devices wrote into their own folders.

A device's name is the name of the folder, never what a file in it says. Links are not followed, so
that no device can pass off another's files, or anything else, as its own.

Hot events of a day are a file: whoever writes appends to that of its day. A file whose day is over
and that nobody has written to since holds nothing that is new, so following reads it no more.
"""

from __future__ import annotations

import errno
import logging
import os
from datetime import date
from typing import TYPE_CHECKING, BinaryIO

from edgefleet.errors import DocumentError, EdgeFleetError, NotFoundError
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.interfaces.telemetry import CLOCK_SLACK, Telemetry
from edgefleet.protocol.event import MAX_BYTES as MAX_EVENT_BYTES
from edgefleet.protocol.event import read_event
from edgefleet.protocol.segment import SegmentName, parse_segment_path
from edgefleet_local.errors import translate
from edgefleet_local.received import Received

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime
    from pathlib import Path

    from edgefleet.protocol.event import Event

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # a link counts for none

_log = logging.getLogger(__name__)


class LocalTelemetry(CanReceive, Telemetry):
    """Events of the devices of a folder.

    Args:
        home: the fleet's folder.
    """

    provider = "local"

    def __init__(self, home: Path) -> None:
        self._home = home
        self._devices = home / "devices"
        self._received = Received(home)

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _segments(self) -> Iterator[SegmentName]:
        for device in _names(self._devices, folders=True):
            segments = self._devices / device / "segments"
            for day in _names(segments, folders=True):
                for model in _names(segments / day, folders=True):
                    below = f"devices/{device}/segments/{day}/{model}"
                    for file in _names(self._home / below, folders=False):
                        name = parse_segment_path(f"{below}/{file}")
                        if name is not None:
                            yield name

    def _open_file(self, device: str, path: str) -> BinaryIO:
        *folders, name = path.split("/")
        try:
            return _open_below(self._devices / device, folders, name)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            msg = f"{path} of {device} isn't there"
            raise NotFoundError(msg, cure="repeat the call later") from error

    def _segment_file(self, name: SegmentName) -> Path | None:
        return self._home / name.path

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        for name in _names(self._devices, folders=True):
            if device not in (None, name):
                continue
            folder = self._devices / name / "hot"
            for file in _names(folder, folders=False):
                if file.endswith(".ndjson") and not _is_over(folder / file, since):
                    for event in _events(folder / file):
                        yield name, event

    def _receive_file(self, device: str, path: str, file: Path) -> None:
        self._received.keep_file(device, path, file)

    def _receive_hot(self, device: str, events: Sequence[Event]) -> None:
        self._received.keep_hot(device, events)


def _is_over(path: Path, since: datetime | None) -> bool:
    """Whether nothing in a day's file of hot events arrived since then, or will."""
    if since is None:
        return False
    oldest = since - CLOCK_SLACK
    try:
        # Both: a device whose clock is wrong writes another day's file now.
        return (
            date.fromisoformat(path.stem) < oldest.date()
            and path.lstat().st_mtime < oldest.timestamp()
        )
    except (ValueError, OSError):
        return False


def _events(path: Path) -> Iterator[Event]:
    """The events of a file that may be growing; a line that a crash tore is left out."""
    try:
        stream = _open_plain(path)
    except FileNotFoundError:
        return
    with stream:
        while line := stream.readline(MAX_EVENT_BYTES + 2):
            if not line.endswith(b"\n"):
                if len(line) > MAX_EVENT_BYTES:
                    _log.warning("%s: a line is too long, the rest is left out", path)
                return  # it is being written
            try:
                yield read_event(line[:-1])
            except DocumentError as error:
                _log.warning("%s: left out a line that is no event: %s", path, error.message)


def _open_below(root: Path, folders: list[str], name: str) -> BinaryIO:
    """A file below a folder; neither it nor what leads there may be a link."""
    entering = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    folder = os.open(root, entering)
    try:
        for part in folders:
            inner = os.open(part, entering, dir_fd=folder)
            os.close(folder)
            folder = inner
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    return os.fdopen(handle, "rb")


def _open_plain(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _names(folder: Path, *, folders: bool) -> list[str]:
    """Names of the folders or of the plain files in a folder, links left out, in order."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if (entry.is_dir if folders else entry.is_file)(follow_symlinks=False)
            )
    except (FileNotFoundError, NotADirectoryError):
        return []
