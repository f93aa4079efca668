"""Captures that an operator orders: the next requests of a model, kept as samples.

Rules kept here:

- Serving pays for a copy of the arrays, while a capture is open for that model; nothing here can
  slow other models, fail an answer or delay a swap.
- What waits to be kept is bounded in bytes, what is open and what is remembered in orders. What
  doesn't fit here, or under the spool's cap, is counted in the answer and let go.
- Inputs are kept only where the policy of the release that serves allows them, redacted as it says.
- An order's id names its samples: a sample that was delivered twice is one.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from edgefleet.errors import EdgeFleetError, LimitExceededError
from edgefleet.protocol.orders import CaptureAnswer
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.redaction import Redactor
from edgefleet_runtime.serve.capture import Capture, npy
from edgefleet_runtime.serve.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from edgefleet.protocol.orders import CaptureOrder
    from edgefleet_runtime.serve.capture import Recorder
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

    Arrays = Mapping[str, NDArray[Any]]

_log = logging.getLogger(__name__)

MAX_OPEN = 16  # orders
MAX_KNOWN = 256  # orders that `take` can still tell of
MAX_BYTES = 32 << 20  # of arrays that wait to be kept


class _Open:
    """An order, and what became of it; all under its owner's lock."""

    def __init__(self, order: CaptureOrder, identity: str, ends: float) -> None:
        self.order = order
        self.id = identity
        self.ends = ends
        self.until = datetime.now(UTC) + timedelta(seconds=order.seconds)
        self.inputs = False
        self.policy = TelemetryPolicy()
        self.taken = self.dropped = 0
        self.kept: list[str] = []
        self.served: ServedModel | None = None
        self.watch: Callable[[Arrays, Arrays | Exception, float], None] = lambda *_: None
        self.open = True


class OnDemand:
    """Orders of one device; any thread may call it.

    Args:
        table: the models that answer requests.
        recorder: keeps samples.
        policy: gives the running release's.
        redactor: of inputs; by default one that goes by the policy and tells nobody.
        max_bytes: of arrays that wait to be kept.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        table: ModelTable,
        recorder: Recorder,
        policy: Callable[[], TelemetryPolicy],
        redactor: Redactor | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._recorder = recorder
        self._policy = policy
        self._redactor = redactor or Redactor(lambda _: None)
        self._max_bytes = max_bytes
        self._clock = clock
        self._known: dict[str, _Open] = {}
        self._bytes = 0
        self._closed = False
        self._lock = threading.RLock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="on-demand")

    def take(self, order: CaptureOrder) -> CaptureAnswer:
        """Begin to capture, or tell what became of the order with this id.

        Raises:
            NotFoundError: no model of that name is served.
            LimitExceededError: too many orders are open.
        """
        with self._lock:
            self._expire()
            identity = order.id or uuid.uuid4().hex
            found = self._known.get(identity)
            if found is None:
                found = self._begin(order, identity)
            return _answer(found)

    def attend(self) -> None:
        """Go on with the models that the table has by now."""
        with self._lock:
            for found in self._known.values():
                if found.open:
                    self._attach(found)

    def close(self, timeout_s: float) -> bool:
        """Take nothing more, and keep what was taken; False when that takes longer."""
        with self._lock:
            closed, self._closed = self._closed, True
            for found in self._known.values():
                self._end(found)
            if closed:
                return True
        last = self._pool.submit(lambda: None)
        self._pool.shutdown(wait=False)
        try:
            last.result(timeout_s)
        except TimeoutError:
            return False
        return True

    def _begin(self, order: CaptureOrder, identity: str) -> _Open:
        served = self._table.get(order.model)
        running = [found for found in self._known.values() if found.open]
        if self._closed or len(running) >= MAX_OPEN:
            raise LimitExceededError(
                f"{len(running)} captures are open on this device",
                cure="wait until one ends; each does when its time is up",
                retryable=True,
            )
        if len(self._known) >= MAX_KNOWN:
            del self._known[next(key for key, found in self._known.items() if not found.open)]
        found = _Open(order, identity, self._clock() + order.seconds)
        found.watch = partial(self._seen, found)
        self._known[identity] = found
        self._attach(found)
        _log.info("capturing %d requests of %s for %s", order.count, served.name, order.by)
        return found

    def _attach(self, found: _Open) -> None:
        """Watch the model of that name that serves now, and no other."""
        model = next((one for one in self._table if one.name == found.order.model), None)
        found.policy = self._policy()
        found.inputs = bool(found.policy.inputs)
        if model is found.served:
            return
        if found.served is not None:
            found.served.unwatch(found.watch)
        found.served = model
        if model is not None:
            model.watch(found.watch)

    def _end(self, found: _Open) -> None:
        found.open = False
        if found.served is not None:
            found.served.unwatch(found.watch)
            found.served = None

    def _expire(self) -> None:
        for found in self._known.values():
            if found.open and self._clock() >= found.ends:
                self._end(found)

    def _seen(self, found: _Open, inputs: Arrays, outcome: Arrays | Exception, _: float) -> None:
        """Take one request; on whichever thread ran it."""
        if isinstance(outcome, Exception):
            return
        with self._lock:
            served = found.served
            if served is None or not found.open or self._clock() >= found.ends:
                self._end(found)
                return
            number, found.taken = found.taken, found.taken + 1
            if found.taken >= found.order.count:
                self._end(found)
            parts = {
                name: array
                for name, array in inputs.items()
                if found.policy.may_keep(found.order.model, name)
            }
            size = sum(array.nbytes for array in (*parts.values(), *outcome.values()))
            if self._bytes + size > self._max_bytes:
                found.dropped += 1
                return
            self._bytes += size
            # Borrowed arrays may lie in a request's buffer, or in memory that a client shares.
            copies = tuple(
                {name: array.copy() for name, array in some.items()} for some in (parts, outcome)
            )
            self._pool.submit(self._keep, found, number, served, copies, size)

    def _keep(
        self,
        found: _Open,
        number: int,
        served: ServedModel,
        tensors: tuple[Arrays, ...],
        size: int,
    ) -> None:
        order = found.order
        identity = f"{found.id}.{number}"
        done = partial(self._done, found, identity, size)
        why = f": {order.reason}" if order.reason else ""
        try:
            given, outputs = tensors
            specs = {spec.name: spec for spec in served.model.interface.inputs}
            inputs, redacted = self._redactor.redact(found.policy, order.model, given, specs)
            capture = Capture(
                id=identity,
                model=order.model,
                version=served.version,
                time=datetime.now(UTC),
                inputs={name: npy(array) for name, array in inputs.items()},
                outputs={name: npy(array) for name, array in outputs.items()},
                reason=f"ordered by {order.by}{why}",
                bundle=served.bundle,
                answers=summarize(outputs, found.policy.output_values),
                redacted=redacted,
            )
            self._recorder.record(capture, done)
        except (EdgeFleetError, OSError) as error:
            _log.warning("sample %s is lost: %s", identity, error)
            done(False)
        except Exception:  # noqa: BLE001 - the next one may go well
            _log.exception("sample %s is lost", identity)
            done(False)

    def _done(self, found: _Open, identity: str, size: int, kept: bool) -> None:  # noqa: FBT001 - the result
        with self._lock:
            self._bytes -= size
            if kept:
                found.kept.append(identity)
            else:
                found.dropped += 1


def _answer(found: _Open) -> CaptureAnswer:
    order = found.order
    return CaptureAnswer(
        id=found.id,
        model=order.model,
        count=order.count,
        until=found.until,
        captured=len(found.kept),
        dropped=found.dropped,
        ids=tuple(found.kept),
        open=found.open,
        inputs=found.inputs,
    )
