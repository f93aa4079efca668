"""Carries what waits for one sink there, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from edgefleet.errors import EdgeFleetError, ThrottledError, UnavailableError
from edgefleet.interfaces.retrying import Pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet_gateway.sinks.base import Outcome, Sink, Waiting
    from edgefleet_gateway.sinks.outbox import Entry, Outbox

PAUSES = Pauses(first_s=1.0, most_s=300.0, longest_told_s=3600.0)
CLOSE_S = 10.0  # seconds that what is under way gets at the end
TOLD_S = 300.0  # seconds between two warnings about the same sink
_log = logging.getLogger(__name__)


class Sending:
    """One sink, its outbox, and what carries the one's content to the other.

    Args:
        name: of the sink.
        outbox: closed with this.
        make: makes the sink, in the thread; an error of it counts as a sink that is away. After a
            failure another is made: certificates may have been renewed.
        pauses: between tries.
    """

    def __init__(
        self,
        name: str,
        outbox: Outbox,
        make: Callable[[], Sink],
        *,
        pauses: Pauses = PAUSES,
    ) -> None:
        self.name, self.outbox = name, outbox
        self.sent = self.refused = self.dropped = self.failures = 0
        self.away = False
        self._make, self._pauses = make, pauses
        self._lock = threading.Lock()
        self._work, self._closing = threading.Event(), threading.Event()
        self._told_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name=f"sink-{name}", daemon=True)
        self._thread.start()

    def put(self, entries: Sequence[Entry]) -> None:
        """Have events sent. A disk that takes none costs them, and is told; never the caller."""
        try:
            dropped = self.outbox.put(entries)
        except EdgeFleetError as error:
            dropped = len(entries)
            self._tell(error)
        if dropped:
            with self._lock:
                self.dropped += dropped
            _log.info("sink %s: %d events dropped, there is no room", self.name, dropped)
        self._work.set()

    def stop(self) -> None:
        """Begin nothing new."""
        self._closing.set()
        self._work.set()

    def close(self) -> None:
        """End. What is under way may take its time, within bounds; what waits stays."""
        self.stop()
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self.outbox.close()

    def _run(self) -> None:
        sink: Sink | None = None
        tries = 0
        while True:
            self._work.clear()  # first: a call to end that comes now is seen, or wakes
            if self._closing.is_set():
                break
            try:
                if self.outbox.count == 0:
                    self._work.wait()
                    continue
                sink = sink or self._make()
                waiting = self.outbox.oldest(sink.batch)
                error = self._carried(sink.send(waiting), waiting)
            except EdgeFleetError as failed:
                error = failed
            except Exception as failed:  # noqa: BLE001 - a defect holds up this sink only
                _log.exception("sink %s", self.name)
                error = UnavailableError(f"{type(failed).__name__}: {failed}")
            if error is None:
                tries, self.away = 0, False
                continue
            tries, self.away = tries + 1, True
            self.failures += 1
            self._tell(error)
            if sink is not None:
                sink.close()
                sink = None
            self._closing.wait(self._pauses.next_s(tries, self._asked_s(error)))
        if sink is not None:
            sink.close()

    def _carried(self, outcome: Outcome, waiting: Sequence[Waiting]) -> EdgeFleetError | None:
        """Note what became of events; what must be sent again keeps its followers of the device."""
        settled: set[int] = set()
        held: set[str] = set()
        for event in waiting:
            if event.number not in outcome.taken and event.number not in outcome.refused:
                held.add(event.device)
            elif event.device not in held:
                settled.add(event.number)
        refused = {n: why for n, why in outcome.refused.items() if n in settled}
        taken = settled - refused.keys()
        self.outbox.done(taken, refused)
        self.sent += len(taken)
        self.refused += len(refused)
        if refused:
            why = next(iter(refused.values()))
            _log.warning("sink %s refuses %d events: set aside, %s", self.name, len(refused), why)
        return outcome.error

    def _asked_s(self, error: EdgeFleetError) -> float | None:
        if not isinstance(error, ThrottledError) or error.retry_after_s is None:
            return None
        return min(error.retry_after_s, self._pauses.longest_told_s)

    def _tell(self, error: EdgeFleetError) -> None:
        now = time.monotonic()
        if now - self._told_at >= TOLD_S:
            self._told_at = now
            _log.warning("sink %s: %s", self.name, str(error))  # a log keeps what it is given
