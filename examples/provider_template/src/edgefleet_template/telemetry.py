"""Telemetry: what devices left in their mailboxes. Whose an event is, its folder tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from edgefleet.errors import DocumentError
from edgefleet.interfaces.telemetry import Telemetry
from edgefleet.protocol.event import read_event
from edgefleet.protocol.files import open_plain
from edgefleet.protocol.segment import SegmentName, parse_segment_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from edgefleet.protocol.event import Event


class MailboxTelemetry(Telemetry):
    """Events in files.

    Args:
        home: the fleet's folder.
    """

    provider = "template"

    def __init__(self, home: Path) -> None:
        self._mail = home / "mail"

    def _outboxes(self) -> Iterator[tuple[str, Path]]:
        for outbox in sorted(self._mail.glob("*/out")):
            yield outbox.parent.name, outbox

    def _segments(self) -> Iterator[SegmentName]:
        for device, outbox in self._outboxes():
            for path in sorted(outbox.glob("segments/*/*/*")):
                name = parse_segment_path(f"devices/{device}/{path.relative_to(outbox).as_posix()}")
                if name is not None:
                    yield name

    def _open_file(self, device: str, path: str) -> BinaryIO:
        return open_plain(self._mail / device / "out" / path)

    def _hot(self, device: str | None, since: datetime | None) -> Iterator[tuple[str, Event]]:
        for name, outbox in self._outboxes():
            if device in (None, name):
                for path in sorted(outbox.glob("hot/*.ndjson")):
                    with open_plain(path) as stream:
                        for line in stream.read().splitlines():
                            try:
                                yield name, read_event(line)
                            except DocumentError:
                                continue  # torn by a power cut
