"""An operator's orders to roll back: they wait for the reconciler's thread, and for their answers.

Rules kept here:

- One order holds for a pointer; further ones are answered by what holds already.
- An answer is given when the release before serves and that is remembered, or when that can't be.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import ConflictError, NotFoundError
from edgefleet.protocol.orders import RollbackAnswer
from edgefleet.protocol.report import RolledBack

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_runtime.reconciler.machine import State

_CURE = "deploy a release that is known to be good to its group: edgefleet rollback GROUP"


class _Asked(NamedTuple):
    """An order, when it came (by its queue's clock), and who waits for its answer."""

    by: str
    reason: str
    came: float
    answer: Future[RollbackAnswer]


class Orders:
    """A queue of orders; `put` may be called by any thread, all else by the reconciler's.

    Args:
        clock: monotonic seconds.
        wake: makes the reconciler look.
    """

    def __init__(self, clock: Callable[[], float], wake: Callable[[], object]) -> None:
        self._clock = clock
        self._wake = wake
        self._waiting: deque[_Asked] = deque()
        self._followed: list[_Asked] = []
        self._pair = (0, 0)

    def put(self, by: str, reason: str) -> Future[RollbackAnswer]:
        """Take an order in; the future tells what came of it."""
        asked = _Asked(by, reason, self._clock(), Future())
        self._waiting.append(asked)
        self._wake()
        return asked.answer

    def take(self, state: State, *, can_go_back: bool) -> RolledBack | None:
        """The order to follow now; those that change nothing are answered at once.

        Args:
            state: as it is.
            can_go_back: whether a release is known that may serve in place of the one that does.
        """
        while self._waiting:
            asked = self._waiting.popleft()
            if not asked.answer.set_running_or_notify_cancel():
                continue
            problem = _problem(state, can_go_back=can_go_back)
            if problem is not None:
                asked.answer.set_exception(NotFoundError(problem, cure=_CURE))
            elif _refused(state):
                asked.answer.set_result(self._answer(state, asked, changed=False))
            else:
                self._followed.append(asked)
        if not self._followed or state.order is not None or state.pointer is None:
            return None
        first, self._pair = self._followed[0], state.pointer.pair
        return RolledBack(
            release=state.pointer.release_for(state.device),
            by=first.by,
            at=datetime.now(UTC),
            reason=first.reason,
        )

    def settle(self, state: State, *, remembered: bool) -> None:
        """Answer the orders that are followed, as soon as they are or can't be.

        Args:
            state: as it is.
            remembered: whether that outlives the process.
        """
        if not self._followed:
            return
        if state.order is not None and (not _refused(state) or state.parked is not None):
            return
        followed, self._followed = self._followed, []
        for number, asked in enumerate(followed):
            if state.order is not None:
                answer = self._answer(state, asked, changed=not number, remembered=remembered)
                asked.answer.set_result(answer)
            elif state.pointer is not None and state.pointer.pair > self._pair:
                asked.answer.set_exception(
                    ConflictError(
                        f"pointer {state.pointer.pair} came meanwhile, which ends every rollback",
                        cure="look at what the device runs now, and repeat it if it is still due",
                    )
                )
            else:
                msg = "the release before can't be loaded any more; what ran goes on"
                asked.answer.set_exception(NotFoundError(msg, cure=_CURE))

    def _answer(
        self, state: State, asked: _Asked, *, changed: bool, remembered: bool = True
    ) -> RollbackAnswer:
        pointer = state.pointer
        epoch, number = (0, 0) if pointer is None else pointer.pair
        return RollbackAnswer(
            changed=changed,
            epoch=epoch,
            number=number,
            wanted=state.wanted or "",
            running=state.running,
            rolled_back=state.order,
            took_ms=round((self._clock() - asked.came) * 1e3, 1),
            remembered=remembered,
        )


def _refused(state: State) -> bool:
    """Whether the device won't serve the wanted release until a higher pointer comes."""
    return state.rejected is not None and state.rejected[0] == state.wanted


def _problem(state: State, *, can_go_back: bool) -> str | None:
    """Why there is nothing to roll back to; None where there is."""
    if state.wanted is None:
        return "no pointer has come to this device yet"
    if _refused(state):
        return None
    if state.running is None and state.parked is None:
        return "no release runs on this device yet"
    if state.running == state.wanted and not can_go_back:
        return "no release ran on this device before the one that runs"
    return None
