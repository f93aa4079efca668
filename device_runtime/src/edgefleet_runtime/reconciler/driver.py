"""The reconciler's turn: takes in what changed, lets `machine.decide` decide, and acts once.

Rules kept here:

- One thread calls it.
- A pointer is remembered before anything is done for it; see `hands` for what follows.
- At start, the release that ran last is served from the disk before the channel is touched.
- An operator's order is followed before anything else that a turn does, and answered when what it
  asks for is so and remembered.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.errors import (
    AccessDeniedError,
    CancelledError,
    EdgeFleetError,
    StorageFullError,
)
from edgefleet.protocol.digest import short
from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet_runtime.faults import point
from edgefleet_runtime.reconciler import machine as m
from edgefleet_runtime.reconciler import memory as mem
from edgefleet_runtime.reconciler.describe import describe_coming, describe_running
from edgefleet_runtime.reconciler.hands import Hands
from edgefleet_runtime.reconciler.ledger import Ledger, said
from edgefleet_runtime.reconciler.orders import Orders
from edgefleet_runtime.reconciler.outside import Outside
from edgefleet_runtime.reconciler.trial import Trial
from edgefleet_runtime.retry import RetryTimer

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from edgefleet.protocol.orders import RollbackAnswer, TrialAnswer, TrialOrder
    from edgefleet.protocol.release import Release
    from edgefleet.protocol.report import ModelReport
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.reconciler.improve import Improver
    from edgefleet_runtime.reconciler.ordered_trial import OrderedTrials
    from edgefleet_runtime.reconciler.rack import Rack

_log = logging.getLogger(__name__)

HEALTHY_AFTER_S = 20.0  # of serving without the process ending, until a release counts as good


class Driver:
    """Keeps what a device serves at what its channel's pointer asks for.

    Args:
        device: the device's name.
        fleet: UUID given at enrolment; None takes the first pointer's.
        channel: where pointer and access come from.
        rack: the releases in memory.
        improver: looks for what makes them faster.
        trials: follows orders to measure what no release names.
        memory_file: what outlives the process.
        on_release: called with each release that begins to answer requests.
        on_event: called with what a person may want to know at once.
        healthy_after_s: seconds of serving until a release counts as good.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        device: str,
        fleet: str | None,
        channel: Channel,
        rack: Rack,
        improver: Improver,
        trials: OrderedTrials,
        memory_file: mem.MemoryFile,
        on_release: Callable[[Release], object] = lambda _: None,
        on_event: Callable[[HealthEvent], object] = lambda _: None,
        healthy_after_s: float = HEALTHY_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = m.State(device=device, fleet=fleet)
        self.rack = rack
        self._improver = improver
        self._trials = trials
        self.busy = False
        """Whether a release is being fetched, tested or swapped in; any thread may look."""
        self.refused = False
        """Whether the newest pointer that came was refused."""
        self.outside = Outside(channel)
        self._ledger = Ledger(memory_file, on_event)
        self._trial = Trial(healthy_after_s=healthy_after_s, clock=clock, alarm=channel.wake)
        self._retry = RetryTimer(clock)
        self._orders = Orders(clock, channel.wake)
        self._hands = Hands(
            rack=rack,
            ledger=self._ledger,
            outside=self.outside,
            trial=self._trial,
            on_release=on_release,
        )

    def restore(self) -> None:
        """Serve what ran last, from the disk alone; the last good release where that one fails.

        The channel isn't touched: this works without any network. A process that ends meanwhile
        leaves it to the next, and neither blames a release nor tells of a start.
        """
        self._ledger.start()
        self.state = replace(self.state, pointer=self.memory.pointer)
        condemned = self.memory.condemned
        if condemned is not None and self.state.wanted == condemned.release:
            self.state = replace(
                self.state,
                rejected=(condemned.release, condemned.reason),
                order=condemned.order,
            )
            self._ledger.note(condemned.reason)
        try:
            for digest in dict.fromkeys((self.memory.running, self.memory.good)):
                if digest is not None and self._restored(digest):
                    break
        except CancelledError:  # only the process' end breaks this off: nobody looks outside yet
            return
        self.rack.hold(self.memory.previous)
        self.rack.pin(good=self.memory.good)
        self._trials.restore()
        self._ledger.tell(
            "started", f"the runtime started; start {self.memory.starts} on this device"
        )

    def _restored(self, digest: str) -> bool:
        try:
            self.rack.restore(digest)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - engines raise anything
            self._ledger.note(f"cannot start with release {short(digest)}: {said(error)}")
            return False
        self.state = replace(self.state, running=digest)
        self._ledger.remember(replace(self.memory, running=digest))
        self._hands.serves()
        return True

    def close(self) -> None:
        """Remember that this process ends in order."""
        self._ledger.remember(replace(self.memory, stopped=True))
        self._improver.drop()
        self._trials.close()
        if self.rack.running is not None:
            self.rack.running.end_shadows()

    def roll_back(self, *, by: str, reason: str) -> Future[RollbackAnswer]:
        """Have the release before serve, until a higher pointer comes; any thread may ask.

        Returns:
            What came of it. The same again changes nothing. It raises NotFoundError where there is
            no release to go back to, and ConflictError where a newer pointer came first. Cancel it
            to withdraw an order that isn't followed yet.
        """
        return self._orders.put(by, reason)

    def try_out(self, order: TrialOrder) -> TrialAnswer:
        """Begin a trial, end one, or tell how far it is; any thread may ask.

        Raises:
            EdgeFleetError: as `OrderedTrials.take`.
        """
        return self._trials.take(order, enrolled=self.state.pointer is not None)

    # ---------------------------------------------------------------------------------------- turn

    def poll(self) -> None:
        """Take in what has changed outside: the pointer, the access, the time."""
        if self._trial.broken is not None and self.state.running is not None:
            # At once: nothing of what a turn does besides may delay it.
            self.state = m.apply(self.state, m.Broke(self.state.running, self._trial.broken[1]))
            self.step()
        order = self._orders.take(self.state, can_go_back=self._hands.can_go_back)
        if order is not None:
            self.state = m.apply(self.state, m.Ordered(order))
            self.step()
        try:
            data, renewed = self.outside.look()
        except EdgeFleetError as error:
            self._ledger.note(f"channel: {error.message}")
            data, renewed = None, False
        if data is not None:
            self._offer(data)
        if renewed or self._retry.due_in_s() == 0:
            self.outside.forgive()
            self._retry.cancel()
            self.state = m.apply(self.state, m.Retry())
        candidate, progress = self.rack.candidate, self.state.progress
        if candidate is not None and (progress is None or progress.release != candidate.digest):
            self.rack.discard()
        if self._trial.due_in_s() == 0:
            self._trial.end()
            self._ledger.remember(mem.proven(self.memory))
            self.rack.pin(good=self.memory.good)

    def step(self) -> bool:
        """Carry out the next action; False when there is none."""
        action = m.decide(self.state)
        if isinstance(action, m.Rest | m.Wait):
            return False
        self._improver.drop()
        self._trials.suspend()
        self.busy = True
        try:
            events = self._hands.perform(action, self.state)
        except CancelledError:
            return True  # something changed outside meanwhile: look again
        except EdgeFleetError as error:
            if isinstance(error, AccessDeniedError):
                self.outside.refused(error)
            events = (self._failed(action, m.failure(action.release, error)),)
        except Exception as error:  # noqa: BLE001 - serving goes on whatever engines raise
            _log.exception("release %s", short(action.release))
            events = (self._failed(action, m.Failed(action.release, said(error))),)
        finally:
            self.busy = False
        for event in events:
            self.state = m.apply(self.state, event)
            if isinstance(event, m.Swapped):
                self._retry.reset()
        self._orders.settle(self.state, remembered=self._ledger.saved)
        return True

    def improve(self) -> bool:
        """Do the next thing that nothing waits for; False when there is none now.

        That is what an operator ordered to be measured, else what makes a good release faster.
        """
        memory, state = self.memory, self.state
        if self._trials.open:
            return self._try_out()
        good = state.running is not None and state.running == memory.good and memory.trial is None
        if not (good and isinstance(m.decide(state), m.Rest)):
            return False
        try:
            return self._improver.step(self._ledger, lambda: self.outside.sources(state.pointer))
        except CancelledError:
            return True  # something changed outside meanwhile: look again

    def _try_out(self) -> bool:
        if self.memory.trial is not None or not isinstance(m.decide(self.state), m.Rest):
            return False
        self._improver.drop()  # it would spoil the figures
        try:
            return self._trials.step(lambda: self.outside.sources(self.state.pointer))
        except CancelledError:
            return True  # something changed outside meanwhile: look again

    def due_in_s(self) -> float | None:
        """Seconds until `poll` has something to do, whatever happens outside; None for never."""
        times = (self._retry.due_in_s(), self._trial.due_in_s(), self._improver.due_in_s())
        return min((at for at in times if at is not None), default=None)

    @property
    def memory(self) -> mem.Memory:
        """What outlives the process."""
        return self._ledger.memory

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong since the pointer came, newest first."""
        return self._ledger.errors

    @property
    def telemetry(self) -> TelemetryPolicy:
        """What the running release asks to be recorded and reported."""
        running = self.rack.running
        return running.acquired.release.telemetry if running else TelemetryPolicy()

    def models(self) -> tuple[ModelReport, ...]:
        """What a report says of the models here: those that run, then those that don't yet."""
        coming = describe_coming(self.rack.candidate, self.state.progress)
        return describe_running(self.rack.running, self._improver) + (
            coming or self._hands.given_up
        )

    def _offer(self, data: bytes) -> None:
        try:
            pointer = read_pointer(data)
            state = m.offer(self.state, pointer, now=datetime.now(UTC))
            if state.pointer != self.state.pointer:
                memory = mem.taken(self.memory, pointer)
                self._ledger.save(memory)
                point("pointer.taken")
                self._ledger.errors, self._hands.given_up = (), ()
                self._retry.reset()
            self.state, self.refused = state, False
            self._orders.settle(state, remembered=True)
        except StorageFullError as error:
            self._ledger.note(f"cannot take the pointer: {error.message}")
            self._retry.wait()
            return  # not taken in: the next turn tries again
        except EdgeFleetError as error:
            self.refused = True
            self._ledger.note(f"pointer refused: {error.message}")
        self.outside.take(data)

    def _failed(self, action: m.Action, event: m.Failed) -> m.Failed:
        """Take note of a failure, and of when to try again."""
        if isinstance(action, m.Advance) and self.rack.candidate is not None:
            self.rack.candidate.units[action.model].reason = event.reason
        if event.waits:
            self._ledger.note(event.reason)
            self._retry.wait()
        return event
