"""Captures: what an application hands over to be kept, and what has become of each.

Rules kept here:

- A call only takes a capture in; keeping it happens beside, and its status says how that ended.
- What waits is bounded in captures and in bytes, what is remembered in captures: the oldest that
  are done are forgotten first, and are NOT_FOUND from then on.
- An id is a UUID, as AWS's agent wants it, in whichever case.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from edgefleet.errors import (
    AlreadyExistsError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
)
from edgefleet_runtime.serve.edgemanager import agent_pb2 as pb

if TYPE_CHECKING:
    from edgefleet_runtime.serve.capture import Capture, Recorder

_log = logging.getLogger(__name__)

MAX_WAITING = 64
MAX_BYTES = 64 << 20  # of the captures that wait
MAX_KNOWN = 4096
MAX_PARTS = 256  # tensors and auxiliary data of one capture
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Captures:
    """Takes captures in and knows what has become of them; any thread may call it."""

    def __init__(
        self,
        recorder: Recorder,
        *,
        max_waiting: int = MAX_WAITING,
        max_bytes: int = MAX_BYTES,
        max_known: int = MAX_KNOWN,
    ) -> None:
        self._recorder = recorder
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._max_known = max_known
        self._known: dict[str, pb.CaptureDataStatus] = {}
        self._waiting = 0
        self._bytes = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="edgefleet-capture")

    def take(self, capture: Capture) -> None:
        """Take a capture in, to be kept soon.

        Raises:
            AlreadyExistsError: its id is known.
            LimitExceededError: there is no room for it now.
        """
        with self._lock:
            if capture.id in self._known:
                raise AlreadyExistsError(f"there is a capture {capture.id} already")
            if self._waiting >= self._max_waiting or self._bytes + capture.size > self._max_bytes:
                raise LimitExceededError(
                    f"{self._waiting} captures of {self._bytes} bytes wait to be kept",
                    cure="capture less often, or try again later",
                    retryable=True,
                )
            if len(self._known) >= self._max_known:
                del self._known[next(i for i, s in self._known.items() if s != pb.IN_PROGRESS)]
            self._known[capture.id] = pb.IN_PROGRESS
            self._waiting += 1
            self._bytes += capture.size
        self._pool.submit(self._record, capture)

    def status(self, identity: str) -> pb.CaptureDataStatus:
        """What has become of a capture."""
        with self._lock:
            return self._known.get(identity, pb.NOT_FOUND)

    def close(self) -> None:
        """Keep what was taken in, then end; waits for that."""
        self._pool.shutdown(wait=True)

    def _record(self, capture: Capture) -> None:
        done = partial(self._done, capture.id, capture.size)
        try:
            self._recorder.record(capture, done)
        except (EdgeFleetError, OSError) as error:
            _log.warning("capture %s is lost: %s", capture.id, error)
            done(False)
        except Exception:  # noqa: BLE001 - the next capture may go well
            _log.exception("capture %s is lost", capture.id)
            done(False)

    def _done(self, identity: str, size: int, kept: bool) -> None:  # noqa: FBT001 - the result
        with self._lock:
            self._known[identity] = pb.SUCCESS if kept else pb.FAILURE
            self._waiting -= 1
            self._bytes -= size


def capture_id(text: str) -> str:
    """The id of a capture in the form in which it is known.

    Raises:
        InvalidInputError: it isn't a UUID.
    """
    identity = text.lower() if len(text) == 36 else ""
    if not _ID.fullmatch(identity):
        raise InvalidInputError(
            f"not a capture id: {text[:40]!r}", cure="use a UUID, such as str(uuid.uuid4())"
        )
    return identity


def is_future(stamp: pb.Timestamp) -> bool:
    """Whether a moment is yet to come."""
    return bool(stamp.seconds * 10**9 + stamp.nanos > time.time_ns())


def moment_of(request: pb.CaptureDataRequest) -> datetime:
    """When the inference was; now, where the request doesn't say (AWS's demo clients don't).

    Raises:
        InvalidInputError: it isn't a moment since 1970.
    """
    if not request.HasField("inference_timestamp"):
        return datetime.now(UTC)
    stamp = request.inference_timestamp
    if stamp.seconds < 0 or not 0 <= stamp.nanos < 10**9:
        raise InvalidInputError(f"not a moment since 1970: {stamp.seconds} s, {stamp.nanos} ns")
    return datetime.fromtimestamp(stamp.seconds, UTC).replace(microsecond=stamp.nanos // 1000)
