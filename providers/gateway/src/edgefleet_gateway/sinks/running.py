"""Forwards what a gateway received, to every sink of its settings.

Whoever gives events here waits for this machine's disk alone, never for a sink.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import attributed
from edgefleet.protocol.segment import parse_segment_path, read_segment
from edgefleet_gateway.sinks.outbox import Entry, Outbox
from edgefleet_gateway.sinks.sending import PAUSES, Sending
from edgefleet_gateway.sinks.settings import HttpSettings, MqttSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from edgefleet.interfaces.retrying import Pauses
    from edgefleet.protocol.event import Event
    from edgefleet_gateway.sinks.base import Sink
    from edgefleet_gateway.sinks.settings import AnySettings

FOLDER = "sinks"  # of the outboxes, in the scratch folder
_TOGETHER = 500  # events of a segment that are kept at once
_REMEMBERED = 20_000  # hot events that were taken last: devices repeat what telemetry refused
_log = logging.getLogger(__name__)


class SinkFigures(NamedTuple):
    """What is to be known of one sink.

    Attributes:
        sink: its name.
        waiting: events that wait for it.
        waiting_bytes: of them.
        sent: events that it took since the gateway began.
        refused: events that it will never take, and that were set aside.
        dropped: events that had to go for want of room.
        failures: deliveries that failed.
        away: whether the last one did.
    """

    sink: str
    waiting: int
    waiting_bytes: int
    sent: int
    refused: int
    dropped: int
    failures: int
    away: bool


class Forwarding:
    """All sinks of a gateway. Safe to share between threads.

    Args:
        sinks: their settings.
        scratch: the gateway's folder on this machine's disk; one process uses it at a time.
        base: folder that relative paths in the settings start from.
        pauses: between tries.

    Raises:
        MissingExtraError: a client isn't installed.
        StorageFullError: the disk takes no outbox.
    """

    def __init__(
        self,
        sinks: Sequence[AnySettings],
        scratch: Path,
        *,
        base: Path,
        pauses: Pauses = PAUSES,
    ) -> None:
        for one in sinks:
            check_installed(one)
        self._lock = threading.Lock()
        self._taken: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._all: list[Sending] = []
        self._of_segments: list[Sending] = []
        for one in sinks:
            outbox = Outbox(scratch / FOLDER / f"{one.name}.sqlite", max_bytes=one.max_mib << 20)
            settings = _absolute(one, base)
            _tell_missing(settings)
            made = Sending(one.name, outbox, _maker(settings), pauses=pauses)
            self._all.append(made)
            if one.segments:
                self._of_segments.append(made)

    def take(self, device: str, events: Sequence[Event]) -> None:
        """Forward hot events of a device; they are on this machine's disk when it returns.

        What was taken lately isn't taken again.
        """
        with self._lock:
            fresh = [event for event in events if (device, event.id) not in self._taken]
        self._put(self._all, device, fresh)
        with self._lock:
            self._taken.update(((device, event.id), None) for event in fresh)
            while len(self._taken) > _REMEMBERED:
                self._taken.popitem(last=False)

    def take_file(self, device: str, path: str, file: Path) -> None:
        """Forward the events of a file that a device sent, where it is a segment and sinks ask.

        Events ahead of a damage are forwarded; whoever queries is told of the damage.
        """
        if not self._of_segments or parse_segment_path(f"devices/{device}/{path}") is None:
            return
        try:
            with file.open("rb") as stream:
                some: list[Event] = []
                try:
                    for event in read_segment(stream, name=path):
                        some.append(event)
                        if len(some) == _TOGETHER:
                            self._put(self._of_segments, device, some)
                            some = []
                finally:
                    self._put(self._of_segments, device, some)
        except EdgeFleetError as error:
            _log.warning("%s of %s is forwarded in part: %s", path, device, error.message)

    @staticmethod
    def _put(to: Sequence[Sending], device: str, events: Sequence[Event]) -> None:
        if not events or not to:
            return
        whose = [attributed(event, device) for event in events]
        entries = [Entry(device, event, encode(event)) for event in whose]
        for sending in to:
            sending.put(entries)

    def figures(self) -> Iterator[SinkFigures]:
        """What is to be known of each sink now."""
        for one in self._all:
            yield SinkFigures(
                one.name,
                one.outbox.count,
                one.outbox.bytes,
                one.sent,
                one.refused,
                one.dropped,
                one.failures,
                one.away,
            )

    def aside(self, sink: str) -> list[tuple[str, bytes, str]]:
        """Device, event and reason of what a sink refused, the oldest first."""
        return next(one.outbox.aside() for one in self._all if one.name == sink)

    def close(self) -> None:
        """End all; what waits stays for the next start."""
        for one in self._all:
            one.stop()
        for one in self._all:
            one.close()


def check_installed(settings: AnySettings) -> None:
    """Refuse a sink whose client isn't there.

    Raises:
        MissingExtraError: it isn't.
    """
    if isinstance(settings, HttpSettings):
        return
    if isinstance(settings, MqttSettings):
        from edgefleet_gateway.sinks import mqtt  # noqa: PLC0415 - an extra

        mqtt.library()
        return
    from edgefleet_gateway.sinks import kafka  # noqa: PLC0415 - likewise

    kafka.library()


def _maker(settings: AnySettings) -> Callable[[], Sink]:
    def make() -> Sink:
        if isinstance(settings, HttpSettings):
            from edgefleet_gateway.sinks.http import HttpSink  # noqa: PLC0415 - where it is used

            return HttpSink(settings)
        if isinstance(settings, MqttSettings):
            from edgefleet_gateway.sinks.mqtt import MqttSink  # noqa: PLC0415 - an extra

            return MqttSink(settings)
        from edgefleet_gateway.sinks.kafka import KafkaSink  # noqa: PLC0415 - likewise

        return KafkaSink(settings)

    return make


def _absolute(settings: AnySettings, base: Path) -> AnySettings:
    """The settings with each path made absolute."""
    found = {name: (base / path.expanduser()).absolute() for name, path in _files(settings)}
    return settings.model_copy(update=found)


def _files(settings: AnySettings) -> Iterator[tuple[str, Path]]:
    """The files that a sink's table names."""
    for name in ("ca", "certificate", "key", "token", "login"):
        path = getattr(settings, name, None)
        if path is not None:
            yield name, path


def _tell_missing(settings: AnySettings) -> None:
    """Tell at the start what would be told at the first delivery: a file may still come."""
    for name, path in _files(settings):
        if not os.access(path, os.R_OK):
            _log.warning(
                "the sink %s delivers nothing yet: its %s %s can't be read; write it there, for "
                "the gateway's user to read",
                settings.name,
                name,
                path,
            )
