"""Operators' requests as files: ``requests/ID.json`` in the outbox, answers in ``replies/ID.json``.

Rules kept here:

- Who asks writes a request whole, by a rename, and takes it away when nobody waits any more.
- A request is taken by removing it, so it is followed at most once; one that was there before the
  device began to hear is removed unread: who asked has long given up.
- For an answer nobody fetches there is no room for ever: the device removes it after `KEPT_S`, and
  when it starts.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.channels.requests import Message, Workers, answer_to
from edgefleet_runtime.store.durable import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.channels.requests import Reply, Request

_log = logging.getLogger(__name__)

REQUESTS, REPLIES = "requests", "replies"
MAX_REQUEST = 4 << 20  # bytes
KEPT_S = 600.0  # seconds that an answer lies there; who asked looks for it many times a second
_NAME = ".json"


class _Taken(NamedTuple):
    """A request that was taken; ``name`` is its file's."""

    name: str
    data: bytes


class FileRequests:
    """Looks for requests until `close`, in a thread of its own.

    Args:
        outbox: the device's own folder.
        ask: answers a request.
        interval_s: seconds between two looks.
    """

    def __init__(self, outbox: Path, ask: Callable[[Request], Reply], *, interval_s: float) -> None:
        self._requests, self._replies = outbox / REQUESTS, outbox / REPLIES
        self._ask = ask
        self._interval_s = interval_s
        self._closed = threading.Event()
        self._workers: Workers[_Taken] = Workers(self._work, "file-request")
        for left in (*self._names(self._requests), *self._names(self._replies)):
            left.unlink(missing_ok=True)
        threading.Thread(target=self._run, name="file-requests", daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._closed.set()
        self._workers.close()

    def _run(self) -> None:
        while not self._closed.wait(self._interval_s):
            for path in self._names(self._requests):
                try:
                    self._take(path)
                except OSError as error:
                    _log.warning("a request can't be taken: %s", error)
            self._sweep()

    def _sweep(self) -> None:
        """Remove answers that nobody fetched."""
        oldest = time.time() - KEPT_S
        for path in self._names(self._replies):
            with suppress(OSError):  # it is being fetched
                if path.lstat().st_mtime < oldest:
                    path.unlink()

    def _names(self, folder: Path) -> list[Path]:
        try:
            found = [p for p in folder.iterdir() if p.suffix == _NAME and p.name[0] != "."]
            return [p for p in found if p.is_symlink() or not p.is_dir()]
        except OSError:  # mostly: not there, because nobody asked anything yet
            return []

    def _take(self, path: Path) -> None:
        try:
            # Neither to leave the folder by a link, nor to hang where somebody made a pipe.
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as stream:
                plain = stat.S_ISREG(os.fstat(handle).st_mode)
                data = stream.read(MAX_REQUEST + 1) if plain else b""
        finally:
            path.unlink()
        if not plain:
            _log.warning("dropped an operator's request that is no plain file")
        elif len(data) > MAX_REQUEST:
            _log.warning("dropped an operator's request of more than %d bytes", MAX_REQUEST)
        elif not self._workers.put(_Taken(path.name, data)):
            _log.warning("dropped an operator's request: too many wait already")

    def _work(self, taken: _Taken) -> None:
        try:
            message = decoder(Message).decode(taken.data)
        except UNREADABLE as error:
            _log.warning("dropped an operator's request that makes no sense: %s", error)
            return
        answer = msgspec.json.encode(answer_to(message, self._ask))
        try:
            self._replies.mkdir(exist_ok=True)  # an outbox that went away isn't made again
            write_durably(self._replies / taken.name, answer)
        except (EdgeFleetError, OSError) as error:
            _log.warning("an answer to an operator is lost: %s", error)
