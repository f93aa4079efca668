"""Runs of one model that go on at the same time: with all threads each, or with one thread each.

The threads of one run wait for each other at every operator. Where as many runs go on as there are
processors, sessions of one thread often serve more, and a run alone takes longer on them. So a
second session serves those runs that meet others, if that pays: it is opened once runs have met
again and again, measured against the first by the same traffic, and closed if it serves no more.

Rules kept here:

- A run that meets no other has all threads, but for a few right after one that did: between two
  runs of a busy server there are moments in which none goes on.
- The second session takes the model's memory again: it is opened only where the machine has room.
- Without it everything goes on as before: what fails here is logged, and no caller's matter.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

from edgefleet.errors import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Run = Callable[[list[str], Mapping[str, Any], Any], Any]
    """Names of outputs, inputs and run options to the outputs' values."""

_log = logging.getLogger(__name__)

MEETINGS = 16  # runs in a row that met another one, before the second session is opened
WARM = 2  # runs after a change of the way, which are not timed
EPOCH = 8  # runs that are timed in a row on one way, at least
EPOCH_S = 0.2  # that they take, at least
EPOCHS = 2  # on each way, in turn
LINGERS = 4  # runs that meet nobody after one that did, and are still taken for part of a crowd
GAIN = 0.98  # of the time on the first way: more must not remain for the second to be worth it


class Crowd:
    """Chooses the session of each run; `run` may be called from several threads.

    Args:
        run: of the session with all threads.
        open_second: opens the session with one thread and gives its `run`; called once at most, on
            a thread of its own. None: there is no room for it.
        measured: False to open it at once, on this thread, and to keep it unmeasured.
        clock: seconds.
    """

    def __init__(
        self,
        run: Run,
        open_second: Callable[[], Run | None],
        *,
        measured: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._first = run
        self._open_second = open_second
        self._clock = clock
        self._lock = threading.Lock()
        self._running = 0
        self._met = 0
        self._crowded = 0
        self._second: Run | None = None if measured else open_second()
        self._trial: Trial | None = None
        self._undecided = measured

    def run(self, names: list[str], feed: Mapping[str, Any], options: Any) -> Any:  # noqa: ANN401 - as of the session
        """The outputs' values; raises what the session raises."""
        with self._lock:
            meets = self._running > 0
            self._running += 1
            self._crowded = LINGERS if meets else max(self._crowded - 1, 0)
            if self._undecided:
                self._look(meets=meets)
            second = self._second if self._crowded else None
            if self._trial is not None:
                if not meets:
                    self._trial.paused(crowded=bool(self._crowded))
                if not self._trial.second:
                    second = None
            run = second or self._first
        try:
            return run(names, feed, options)
        finally:
            with self._lock:
                self._running -= 1
                if self._trial is not None:
                    self._ran()

    def close(self) -> None:
        """Let go of both sessions; runs that go on end on them, further ones raise."""
        with self._lock:
            self._undecided, self._second, self._trial = False, None, None
            self._first = _closed

    def _look(self, *, meets: bool) -> None:
        """Open the second session once runs meet all the time."""
        if self._trial is not None or self._met > MEETINGS:
            return
        self._met = self._met + 1 if meets else 0
        if self._met > MEETINGS:
            threading.Thread(target=self._open, name="second-session", daemon=True).start()

    def _open(self) -> None:
        try:
            second = self._open_second()
        except Exception as error:  # noqa: BLE001 - the first session serves as before
            _log.warning("no second session is opened: %s", error)
            second = None
        with self._lock:
            if not self._undecided:
                return  # closed meanwhile
            self._undecided = second is not None
            if second is not None:
                self._second, self._trial = second, Trial(self._clock)

    def _ran(self) -> None:
        trial = self._trial
        if trial is None:
            return
        worth = trial.ran()
        if worth is None:
            return
        self._trial, self._undecided = None, False
        first, second = trial.seconds
        way = "one thread each" if worth else "all threads"
        _log.info(
            "runs at the same time get %s (%.2f ms against %.2f ms)", way, second * 1e3, first * 1e3
        )
        if not worth:
            self._second = None


def _closed(*_: object) -> NoReturn:
    raise InferenceError("the model is closed")


class Trial:
    """Times runs that meet each other, on one way and the other in turn.

    Attributes:
        second: whether the second way is to be taken now.
        seconds: of a run on the first and on the second way, in the best epoch of each.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.second = True
        self.seconds = (0.0, 0.0)
        self._clock = clock
        self._taken: tuple[list[float], list[float]] = ([], [])
        self._runs = 0
        self._began = self._ended = 0.0

    def paused(self, *, crowded: bool) -> None:
        """Take note of a run that begins while no other goes on; a long pause ends the epoch."""
        so_far_s = self._ended - self._began
        long_s = 2 * so_far_s / max(self._runs - WARM, 1)
        if not crowded or self._runs <= WARM or self._clock() - self._ended > long_s:
            self._runs = 0

    def ran(self) -> bool | None:
        """Take note of a run that ended.

        Returns:
            Whether the second way is worth it; None while that isn't known.
        """
        self._runs += 1
        self._ended = self._clock()
        if self._runs <= WARM:
            self._began = self._ended
        timed, taken_s = self._runs - WARM, self._ended - self._began
        if timed < EPOCH or taken_s < EPOCH_S:
            return None
        self._taken[self.second].append(taken_s / timed)
        self._runs, self.second = 0, not self.second
        if len(self._taken[0]) < EPOCHS:
            return None
        self.seconds = (min(self._taken[0]), min(self._taken[1]))
        return self.seconds[1] <= self.seconds[0] * GAIN
