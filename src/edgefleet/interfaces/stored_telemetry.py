"""Telemetry whose segments lie in object storage, below a folder for each device.

A device's name is its folder's: its access lets it write below its own name only. Messages of hot
events are JSON, ``{"events": […]}``, as device channels pack them.
"""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import EdgeFleetError, InvalidInputError
from edgefleet.interfaces.telemetry import Telemetry
from edgefleet.protocol.event import read_event
from edgefleet.protocol.names import check_name
from edgefleet.protocol.segment import SegmentName, parse_segment_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.protocol.event import Event

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


def hot_events(message: bytes, origin: str) -> Iterator[Event]:
    """The events of a message; what is none is left out, because any device may have written it.

    Args:
        message: as it came.
        origin: where it was found, for the log.
    """
    try:
        parts = [msgspec.json.encode(one) for one in json.loads(message)["events"]]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        _log.warning("%s: left out, it is no message of events: %r", origin, error)
        return
    for part in parts:
        try:
            yield read_event(part)
        except EdgeFleetError as error:
            _log.warning("%s: left out what is no event: %s", origin, error.message)
