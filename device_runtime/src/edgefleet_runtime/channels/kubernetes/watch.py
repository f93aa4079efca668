"""Follows one ConfigMap through the API: list, then watch from there, and no change is missed.

Rules kept here (https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes):

- A watch goes on from the version of the last event, bookmarks included, whatever ended it.
- A watch that brought nothing at all, not even a bookmark, is followed by a list: a server whose
  store was restored from a backup is behind that version, and tells nothing until it is past it.
- When the server knows that version no more (410, as an answer or as an event), it is listed again:
  what happened in between shows as the object's new state.
- After a failure comes a pause that doubles, with jitter, up to `LONGEST_PAUSE_S`; a watch that
  brought something, or lasted, begins again with the shortest. So does a list after 410, because a
  whole fleet is told so at once.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgefleet.errors import EdgeFleetError, NotFoundError, UnavailableError
from edgefleet_runtime.channels.kubernetes.api import refused
from edgefleet_runtime.retry import pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_runtime.channels.kubernetes.api import ApiServer
    from edgefleet_runtime.channels.kubernetes.settings import Place

_log = logging.getLogger(__name__)

WATCH_S = (300, 600)  # the server ends a watch after so long, anywhere in between
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LASTED_S = 60.0  # a watch that lasted so long didn't fail
_CHANGES = frozenset({"ADDED", "MODIFIED", "DELETED"})


class Watch:
    """Keeps the newest state of one object.

    Args:
        api: the server.
        place: the object.
        changed: called, in the watch's thread, when the object may have changed.
        pause: waits for so many seconds; may return early, and must when `stop` was called. None
            for a real wait.
        clock: monotonic seconds.
        jitter: source of chance.
    """

    def __init__(
        self,
        api: ApiServer,
        place: Place,
        *,
        changed: Callable[[], None],
        pause: Callable[[float], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
    ) -> None:
        self.object: dict[str, Any] | None = None
        """The object as it was last seen; None where there is none, or before it was looked at."""
        self._api, self._place = api, place
        self._changed = changed
        self._stopping = threading.Event()
        self._pause = pause or self._stopping.wait
        self._clock = clock
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._version: str | None = None
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self.run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """End soon; any thread may call it."""
        self._stopping.set()
        open_socket = self._socket
        if open_socket is not None:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Follow the object until `stop`."""
        waits = self._pauses()
        while not self._stopping.is_set():
            began = self._clock()
            try:
                for _ in self._follow():
                    waits = self._pauses()
            except NotFoundError as error:
                _log.info("%s is listed again: %s", self._place.name, error.message)
                self._version = None
            except EdgeFleetError as error:
                _log.info("%s can't be watched now: %s", self._place.name, error.message)
            if self._clock() - began >= LASTED_S:
                waits = self._pauses()
            if not self._stopping.is_set():
                self._pause(next(waits))

    def _pauses(self) -> Iterator[float]:
        return pauses(self._jitter, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)

    def _follow(self) -> Iterator[None]:
        """List where that is needed, then watch; yields for each event."""
        if self._version is None:
            found, self._version = self._api.listed(self._place)
            self._take(found)
        timeout_s = self._jitter.randint(*WATCH_S)
        with self._api.watch(self._place, self._version, timeout_s) as (events, open_socket):
            self._socket = open_socket
            brought = False
            try:
                if self._stopping.is_set():  # it found no socket to shut down
                    return
                for event in events:
                    if self._stopping.is_set():
                        return
                    self._told(event)
                    brought = True
                    yield
            finally:
                self._socket = None
                if not brought:
                    self._version = None

    def _told(self, event: dict[str, Any]) -> None:
        kind, content = event.get("type"), event.get("object")
        if not isinstance(content, dict):
            raise UnavailableError("the API server's event has no object")
        if kind == "ERROR":
            code = content.get("code")
            raise refused(code if isinstance(code, int) else 500, {}, str(content.get("message")))
        meta = content.get("metadata")
        version = meta.get("resourceVersion") if isinstance(meta, dict) else None
        if not isinstance(version, str):
            raise UnavailableError("the API server's event has no version")
        if kind in _CHANGES:
            self._take(None if kind == "DELETED" else content)
        self._version = version  # last: what wasn't taken is told again

    def _take(self, found: dict[str, Any] | None) -> None:
        before, self.object = self.object, found
        if found != before:
            self._changed()
