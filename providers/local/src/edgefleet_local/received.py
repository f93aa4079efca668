"""What a gateway received of devices and keeps in their folders, for any number of processes."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet.protocol.digest import CHUNK_BYTES
from edgefleet.protocol.documents import encode
from edgefleet.protocol.files import append_lines
from edgefleet_local.files import locked, make_folder, sync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgefleet.protocol.event import Event


class Received:
    """Writes below the own prefix of a device, as its runtime would.

    A file appears by a rename and is durable then. Hot events are appended to the day's file; a
    line that a crash tore is ended first, and readers leave it out.

    Args:
        home: the fleet's folder.
    """

    def __init__(self, home: Path) -> None:
        self._devices = home / "devices"
        self._partials = home / "partial" / "received"
        self._locks = home / "locks" / "received"

    def keep_file(self, device: str, path: str, file: Path) -> None:
        """Keep a file; nothing is written where one of that name and size is there already."""
        target = self._devices / device / path
        with locked(self._locks / device):
            if target.is_file() and target.stat().st_size == file.stat().st_size:
                return
            make_folder(target.parent)
            make_folder(self._partials)
            partial = self._partials / device
            try:
                with file.open("rb") as source, partial.open("wb") as to:
                    shutil.copyfileobj(source, to, CHUNK_BYTES)
                    to.flush()
                    os.fsync(to.fileno())
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            sync_folder(target.parent)

    def keep_hot(self, device: str, events: Sequence[Event]) -> None:
        """Append events to today's file."""
        lines = b"".join(encode(event) + b"\n" for event in events)
        path = self._devices / device / "hot" / f"{datetime.now(UTC):%Y-%m-%d}.ndjson"
        with locked(self._locks / device):
            make_folder(path.parent)
            new = not path.exists()
            append_lines(path, lines)
            if new:
                sync_folder(path.parent)
