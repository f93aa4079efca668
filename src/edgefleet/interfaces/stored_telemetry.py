"""Telemetry whose segments lie in object storage, below a folder for each device.

A device's name is its folder's: its access lets it write below its own name only. Messages of hot
events are JSON, ``{"events": […]}``, as device channels pack them, and gateways for devices.
"""

from __future__ import annotations

import io
import json
import logging
from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet.interfaces.receiving import CanReceive
from edgefleet.interfaces.telemetry import Telemetry
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import MAX_BYTES, read_event
from edgefleet.protocol.names import check_name
from edgefleet.protocol.segment import SegmentName, parse_segment_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from edgefleet.protocol.event import Event

MAX_HOT_MESSAGE = 2 * MAX_BYTES
"""Bytes of a message of hot events that is read: the longest event, and what is around it."""
_PACKED = 512 << 10  # bytes after which events go into another message

_log = logging.getLogger(__name__)


class StoredTelemetry(Telemetry):
    """Segments at ``DEVICE/segments/…``."""

    def _segments(self) -> Iterator[SegmentName]:
        for device in self._devices():
            for path in self._paths(device, "segments/"):
                name = parse_segment_path(f"devices/{device}/{path}")
                if name is not None:
                    yield name

    def _devices(self) -> Iterator[str]:
        """Names of devices that have written anything, in the order of their folders."""
        for folder in self._folders():
            try:
                yield check_name("device", folder)
            except InvalidInputError:
                _log.info("passed over %s: no device has that name", folder)

    @abstractmethod
    def _folders(self) -> Iterator[str]:
        """Names of the folders of devices, without a slash."""

    @abstractmethod
    def _paths(self, device: str, start: str) -> Iterator[str]:
        """Paths below a device's folder that begin so."""


class ReceivingTelemetry(CanReceive, StoredTelemetry):
    """Such telemetry that a gateway writes for devices, as they would write themselves."""

    def _receive_file(self, device: str, path: str, file: Path) -> None:
        self._create(device, path, lambda: file.open("rb"), file.stat().st_size)

    def _receive_hot(self, device: str, events: Sequence[Event]) -> None:
        for message in hot_messages(events):
            path = f"hot/{hex_of(digest_of(message))}.json"
            self._create(device, path, partial(io.BytesIO, message), len(message))

    @abstractmethod
    def _create(self, device: str, path: str, source: Callable[[], BinaryIO], size: int) -> None:
        """Make a file below a device's folder; where there is one already, it stays.

        Args:
            device: whose.
            path: below its folder.
            source: opens the content from its start, as often as it is called.
            size: of the content, in bytes.
        """


def hot_messages(events: Sequence[Event]) -> Iterator[bytes]:
    """Pack hot events into messages that `hot_events` reads, each below `MAX_HOT_MESSAGE`."""
    waiting: list[bytes] = []
    size = 0
    for data in map(encode, events):
        if waiting and size + len(data) > _PACKED:
            yield _message(waiting)
            waiting, size = [], 0
        waiting.append(data)
        size += len(data)
    if waiting:
        yield _message(waiting)


def _message(parts: list[bytes]) -> bytes:
    return b'{"events":[' + b",".join(parts) + b"]}"


def hot_events(message: bytes, origin: str) -> Iterator[Event]:
    """The events of a message; what is none is left out, because any device may have written it.

    Args:
        message: as it came.
        origin: where it was found, for the log.
    """
    try:
        parts = [msgspec.json.encode(one) for one in json.loads(message)["events"]]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        _log.warning("%s: left out, it is no message of events: %s", origin, error)
        return
    for part in parts:
        try:
            yield read_event(part)
        except EdgeFleetError as error:
            _log.warning("%s: left out what is no event: %s", origin, error.message)
