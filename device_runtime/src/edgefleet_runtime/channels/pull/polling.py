"""Asks for the pointer again and again, in a thread of its own, and says when to ask next.

Rules kept here:

- A gateway that lets a device wait is asked again as soon as it has answered; one that doesn't, or
  a web server, after a pause with jitter that it may name.
- A device that was asked something by an operator asks on at once: the next question follows often.
  One that is asked without end pauses as after other news, on average.
- After a failure the pause doubles up to `LONGEST_S`, and is short again after the first success.
  A ``Retry-After`` is honoured. A device that is refused asks on, seldom: somebody may let it in.
- What was held stays held whatever comes instead of an answer.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import AccessDeniedError, EdgeFleetError, ThrottledError
from edgefleet_runtime.retry import LONGEST_ASKED_S, LONGEST_S, pauses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_runtime.channels.pull.standing import Standing

    Start = Callable[[str, Callable[[], None]], None]
    """Runs work, given a name for it."""

_log = logging.getLogger(__name__)

FIRST_S = 1.0  # of the pauses after failures
LEAST_S = 0.2  # between two calls, whatever is answered; of those at once, on average
AT_ONCE = 20  # calls of a device that is asked something
MOST_S = 86_400.0  # that a gateway may ask a device to stay away
WAITED_S = 5.0  # an answer without news that took so long was waited for
REFUSED_S = 60.0  # least pause of a device that isn't let in


def in_thread(name: str, work: Callable[[], None]) -> None:
    """Run work in a thread that ends with the process, however long the work takes."""
    threading.Thread(target=work, name=name, daemon=True).start()


class News(NamedTuple):
    """What one call told.

    Attributes:
        pointer: as it came; None where there is none yet.
        etag: to ask with the next time; None for none.
        again_s: pause that the other side names, where it wasn't waited; None for one's own.
        busy: whether something else than the pointer came, which may be had again at once.
        asked: whether this device was asked something.
    """

    pointer: bytes | None
    etag: str | None
    again_s: float | None = None
    busy: bool = False
    asked: bool = False


class Poller:
    """Holds the newest pointer.

    Args:
        ask: makes one call: given the last ``etag``, and seconds to wait for news.
        standing: is told how it went.
        changed: called when there is another pointer.
        wait_s: seconds that the other side is asked to wait for news; 0 for not.
        poll_s: seconds between two calls where it doesn't wait, or names no other.
        clock: monotonic seconds.
        jitter: source of chance.
        start: runs the asking, which ends with `close`.
    """

    def __init__(
        self,
        ask: Callable[[News, float], News],
        standing: Standing,
        changed: Callable[[], None],
        *,
        wait_s: float,
        poll_s: float,
        clock: Callable[[], float] = time.monotonic,
        jitter: random.Random | None = None,
        start: Start = in_thread,
    ) -> None:
        self._ask, self._standing, self._changed = ask, standing, changed
        self._wait_s, self._poll_s, self._clock = wait_s, poll_s, clock
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._failing: Iterator[float] | None = None
        self._paid = -math.inf  # until when calls at once have used up their pauses
        self._held = News(None, None)
        self._closed = threading.Event()
        self._starting = threading.Lock()
        self._start, self._begun = start, False

    @property
    def held(self) -> bytes | None:
        """The newest pointer; the first time this is asked, the other side is, without waiting."""
        self._begin()
        return self._held.pointer

    def _begin(self) -> None:
        with self._starting:
            if self._begun or self._closed.is_set():
                return
            pause = self.turn(wait_s=0.0)
            self._begun = True
            self._start("pull-poll", partial(self._run, pause))

    def close(self) -> None:
        """Ask no more; a call that is under way has to be ended by whoever carries it."""
        self._closed.set()

    def turn(self, *, wait_s: float | None = None) -> float:
        """Ask once; returns seconds until the next time."""
        wait_s = self._wait_s if wait_s is None else wait_s
        began = self._clock()
        try:
            news = self._ask(self._held, wait_s)
        except EdgeFleetError as error:
            return self._failed(error)
        self._failing = None
        before, self._held = self._held, news
        self._standing.went_well()
        if news.pointer != before.pointer:
            self._changed()
        elif news.asked:
            return self._soon()
        elif not (news.busy or self._may_wait(wait_s, self._clock() - began)):
            pause = self._poll_s if news.again_s is None else min(news.again_s, MOST_S)
            return max(LEAST_S, self._jitter.uniform(0.8, 1.2) * pause)
        return self._jitter.uniform(LEAST_S, 2 * LEAST_S)

    def _soon(self) -> float:
        """No pause, while calls at once are few enough."""
        now = self._clock()
        self._paid = max(self._paid, now) + LEAST_S
        return max(0.0, self._paid - now - AT_ONCE * LEAST_S)

    def _may_wait(self, asked_s: float, took_s: float) -> bool:
        """Whether the other side lets devices wait, as far as an answer without news tells."""
        if asked_s <= 0:
            return self._wait_s > 0  # it was not asked to, and is the next time
        return took_s >= min(WAITED_S, asked_s)

    def _failed(self, error: EdgeFleetError) -> float:
        if self._closed.is_set():
            return 0.0
        _log.info("no news: %s", error)
        self._standing.met(error)
        if self._failing is None:
            self._failing = pauses(self._jitter, first_s=FIRST_S, longest_s=LONGEST_S)
        pause = next(self._failing)
        if isinstance(error, AccessDeniedError):
            return max(pause, self._jitter.uniform(REFUSED_S, 2 * REFUSED_S))
        if isinstance(error, ThrottledError) and error.retry_after_s is not None:
            # A little later than asked for: thousands were asked in the same second.
            asked = min(error.retry_after_s, LONGEST_ASKED_S)
            return max(pause, asked * self._jitter.uniform(1.0, 1.25))
        return pause

    def _run(self, pause: float) -> None:
        while not self._closed.wait(pause):
            try:
                pause = self.turn()
            except Exception:  # noqa: BLE001 - a device that asks no more can't be helped from afar
                _log.exception("asking for the pointer")
                pause = LONGEST_S
