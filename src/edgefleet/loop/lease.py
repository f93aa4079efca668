"""One at a time: a loop's lease in its own state document.

Rules kept here:

- Nobody's wall clock is asked. The holder counts renewals up, three in a lease's time; whoever
  wants the lease watches the number by its own monotonic clock. One that stands still for the whole
  time belongs to a process that died.
- Every write of the holder is a compare-and-swap that finds itself still the holder. One that was
  suspended for longer than its lease finds another's name and ends with `LoopHeldError`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import msgspec

from edgefleet.errors import ConflictError, EdgeFleetError, LoopHeldError
from edgefleet.loop.record import Lease, LoopRecord, encode_record, key_of, read_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.state import StateStore

_LOG = logging.getLogger(__name__)
MAX_TRIES = 50  # of a write that others keep overtaking


def read(store: StateStore, loop: str) -> LoopRecord | None:
    """A loop's state; None where it was never run."""
    stored = store.read(key_of(loop))
    return None if stored is None else read_record(stored.data)


class Held:
    """A loop's state while this process alone works at it; a context manager.

    Args:
        store: the profile's.
        loop: its name.
        model: for a state that doesn't exist yet.
        ttl_s: how long the lease outlives this process, in seconds.
        now: the time, for a state that doesn't exist yet.
        clock: monotonic seconds.
        sleep: waits so many seconds.

    Raises:
        LoopHeldError: from ``with``: another process works at it.
    """

    def __init__(
        self,
        store: StateStore,
        loop: str,
        *,
        model: str,
        ttl_s: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._store, self._loop, self._model, self._ttl_s = store, loop, model, ttl_s
        self._now, self._clock, self._sleep = now, clock, sleep
        self.holder = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._writing = threading.Lock()

    def __enter__(self) -> Self:
        self._take()
        self._thread = threading.Thread(target=self._renew, name="loop lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(EdgeFleetError):  # it then ends by itself
            self.change(lambda record: msgspec.structs.replace(record, lease=None))

    @property
    def record(self) -> LoopRecord:
        """The state now.

        Raises:
            LoopHeldError: another process took the lease meanwhile.
        """
        return self.change(lambda record: record)

    def change(self, change: Callable[[LoopRecord], LoopRecord]) -> LoopRecord:
        """Write what ``change`` makes of the state, and return it.

        Raises:
            LoopHeldError: another process took the lease meanwhile.
        """
        with self._writing:
            for _ in range(MAX_TRIES):
                stored = self._store.read(key_of(self._loop))
                record = None if stored is None else read_record(stored.data)
                if record is None or record.lease is None or record.lease.holder != self.holder:
                    raise _held(self._loop, None if record is None else record.lease)
                after = change(record)
                if after == record:
                    return after
                try:
                    tag = None if stored is None else stored.tag
                    self._store.write(key_of(self._loop), encode_record(after), expect=tag)
                except ConflictError:
                    continue
                return after
        msg = f"the state of loop {self._loop!r} kept changing"
        raise ConflictError(msg, cure="run it again")

    def _take(self) -> None:
        """Become the holder, after watching whoever is it already."""
        watched: tuple[str, int] | None = None
        since = self._clock()
        while True:
            stored = self._store.read(key_of(self._loop))
            record = None if stored is None else read_record(stored.data)
            lease = None if record is None else record.lease
            if lease is not None:
                seen = (lease.holder, lease.renewals)
                if watched is None:
                    watched, since = seen, self._clock()
                    _LOG.info("loop %s: %s holds it; watching", self._loop, lease.holder)
                elif seen != watched:
                    raise _held(self._loop, lease)
                if self._clock() - since < lease.ttl_s:
                    self._sleep(min(0.5, lease.ttl_s / 10))
                    continue
                _LOG.warning("loop %s: %s is gone; going on", self._loop, lease.holder)
            if record is None:
                record = LoopRecord(loop=self._loop, model=self._model, created=self._now())
            mine = Lease(holder=self.holder, renewals=0, ttl_s=self._ttl_s)
            try:
                tag = None if stored is None else stored.tag
                data = encode_record(msgspec.structs.replace(record, lease=mine))
                self._store.write(key_of(self._loop), data, expect=tag)
            except ConflictError:
                continue
            return

    def _renew(self) -> None:
        while not self._over.wait(self._ttl_s / 3):
            try:
                self.change(_renewed)
            except LoopHeldError:
                return  # the next step finds it, too
            except EdgeFleetError as error:
                _LOG.warning("loop %s: the lease wasn't renewed: %s", self._loop, error)


def _renewed(record: LoopRecord) -> LoopRecord:
    assert record.lease is not None  # noqa: S101 - `change` has looked
    lease = msgspec.structs.replace(record.lease, renewals=record.lease.renewals + 1)
    return msgspec.structs.replace(record, lease=lease)


def _held(loop: str, lease: Lease | None) -> LoopHeldError:
    who = "another process" if lease is None else lease.holder
    return LoopHeldError(
        f"{who} works at loop {loop!r}",
        cure="let it, and run this again later; a process that died is forgotten by itself",
    )
