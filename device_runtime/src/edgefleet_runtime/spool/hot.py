"""Hot events on their way: alarms and health, small, kept until the channel has taken them."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from edgefleet.errors import DocumentError, StorageFullError
from edgefleet.protocol.documents import encode
from edgefleet.protocol.event import read_event
from edgefleet.protocol.files import translate_full
from edgefleet_runtime.store.durable import write_durably

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.event import Event

MAX_EVENTS = 512


class HotQueue:
    """Events in order, in a file that outlives the process. Any thread may call it.

    Args:
        path: the file; what an earlier process left in it is still to be sent.
        max_events: when there are more, the oldest go and are counted in ``dropped``.
    """

    def __init__(self, path: Path, *, max_events: int = MAX_EVENTS) -> None:
        self.dropped = 0
        self._path = path
        self._max_events = max_events
        self._lock = threading.Lock()
        self._events = deque(self._load())

    def put(self, event: Event) -> None:
        """Add an event. On a full disk it is kept in memory alone."""
        with self._lock:
            self._events.append(event)
            if len(self._events) > self._max_events:
                self._events.popleft()
                self.dropped += 1
                self._rewrite()
                return
            try:
                with translate_full(self._path), self._path.open("ab", buffering=0) as stream:
                    stream.write(encode(event) + b"\n")
            except StorageFullError:
                pass

    def waiting(self) -> tuple[Event, ...]:
        """Events to be sent, the oldest first."""
        with self._lock:
            return tuple(self._events)

    def sent(self, count: int) -> None:
        """Forget the oldest ``count`` events, which the channel has taken."""
        with self._lock:
            for _ in range(count):
                self._events.popleft()
            self._rewrite()

    def _rewrite(self) -> None:
        try:
            if self._events:
                lines = b"".join(encode(event) + b"\n" for event in self._events)
                write_durably(self._path, lines)
            else:
                self._path.unlink(missing_ok=True)
        except StorageFullError:
            pass  # some may be sent twice after a restart: receivers know them by their ids

    def _load(self) -> list[Event]:
        try:
            lines = self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        events: list[Event] = []
        for line in lines:
            try:
                events.append(read_event(line))
            except DocumentError:
                self.dropped += 1  # torn by a power cut
        if lines and not lines[-1].endswith(b"\n"):
            self._path.write_bytes(b"".join(encode(event) + b"\n" for event in events))
        return events
