"""Where captures go: into a device's spool, or into a folder of a server without a fleet.

Each becomes a ``sample`` event that has the capture's id, and a file for each of its parts.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError, StorageFullError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import Sample, new_event
from edgefleet.protocol.files import translate_full
from edgefleet_runtime.spool.samples import SampleFiles
from edgefleet_runtime.store.durable import sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet.protocol.event import Event
    from edgefleet_runtime.serve.capture import Capture
    from edgefleet_runtime.spool.spool import Spool

EVENTS = "events.ndjson"


class SpoolRecorder:
    """Keeps captures in a device's spool, from where its channel delivers them."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def record(self, capture: Capture, done: Callable[[bool], None]) -> None:
        """Keep the files here, and the event in the spool's own thread.

        Raises:
            StorageFullError: no room for the files.
        """
        self._spool.keep(event_of(capture, self._spool.samples), done)


class FolderRecorder:
    """Keeps captures in a folder: files by digest, and a line an event in ``events.ndjson``.

    Args:
        root: the folder.
        max_bytes: cap of everything in it.

    Raises:
        ConfigurationError: the folder can't be made or read.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._events = root / EVENTS
            self._written = self._events.stat().st_size if self._events.exists() else 0
            self._max_bytes = max_bytes
            self._files = SampleFiles(root, max_bytes - self._written)
        except OSError as error:
            raise ConfigurationError(
                f"captures can't be kept in {root}: {error.strerror or error}",
                cure="give --capture-dir a folder that this user may write",
            ) from error

    def record(self, capture: Capture, done: Callable[[bool], None]) -> None:
        """Keep it; done when it is on the disk.

        Raises:
            StorageFullError: no room.
            OSError: the disk failed otherwise.
        """
        line = encode(event_of(capture, self._files)) + b"\n"
        if self._files.used_bytes + self._written + len(line) > self._max_bytes:
            raise StorageFullError(f"{self._events.parent} has no room below {self._max_bytes}")
        new = not self._written
        with translate_full(self._events), self._events.open("ab") as stream:
            stream.write(line)
            stream.flush()
            os.fsync(stream.fileno())
        if new:
            sync_folder(self._events.parent)
        self._written += len(line)
        self._files.max_bytes = self._max_bytes - self._written
        done(True)


def event_of(capture: Capture, files: SampleFiles) -> Event:
    """A capture's event, once its files are kept; its id is the capture's.

    Raises:
        StorageFullError: no room for a file.
    """

    def kept(parts: Mapping[str, bytes]) -> dict[str, str]:
        return {name: files.put(data) for name, data in parts.items()}

    sample = Sample(
        model=capture.model,
        model_version=capture.version,
        reason=capture.reason,
        inputs=kept(capture.inputs),
        outputs=kept(capture.outputs),
        bundle=capture.bundle,
        answers=capture.answers,
        redacted=dict(capture.redacted),
    )
    return new_event(sample, time=capture.time, identity=capture.id)
