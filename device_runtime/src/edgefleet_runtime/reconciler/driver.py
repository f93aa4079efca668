"""The reconciler's hands: carries out what `machine.decide` says, with disk, engines and table.

Rules kept here:

- One thread calls it.
- Memory is written before the act that it must outlive: the pointer before anything is done for it,
  the trial before anything is loaded, the running release before the table is swapped. So a power
  cut at any instant leaves the old release or the new one.
- At start, the release that ran last is served from the disk before the channel is touched.
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
    IntegrityError,
    NotFoundError,
    StorageFullError,
)
from edgefleet.protocol.digest import short
from edgefleet.protocol.event import HealthEvent
from edgefleet.protocol.pointer import read_pointer
from edgefleet.protocol.release import TelemetryPolicy
from edgefleet_runtime.faults import point
from edgefleet_runtime.reconciler import machine as m
from edgefleet_runtime.reconciler import memory as mem
from edgefleet_runtime.reconciler.describe import describe_coming, describe_running
from edgefleet_runtime.reconciler.outside import Outside
from edgefleet_runtime.retry import RetryTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.protocol.release import Release
    from edgefleet.protocol.report import ModelReport
    from edgefleet_runtime.channels.base import Channel
    from edgefleet_runtime.reconciler.rack import Rack

_log = logging.getLogger(__name__)

HEALTHY_AFTER_S = 20.0  # of serving without the process ending, until a release counts as good
ERRORS_KEPT = 8


class Driver:
    """Keeps what a device serves at what its channel's pointer asks for.

    Args:
        device: the device's name.
        fleet: UUID given at enrolment; None takes the first pointer's.
        channel: where pointer and access come from.
        rack: the releases in memory.
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
        memory_file: mem.MemoryFile,
        on_release: Callable[[Release], object] = lambda _: None,
        on_event: Callable[[HealthEvent], object] = lambda _: None,
        healthy_after_s: float = HEALTHY_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = m.State(device=device, fleet=fleet)
        self.memory = mem.Memory()
        self.errors: tuple[str, ...] = ()
        self.given_up: tuple[ModelReport, ...] = ()
        self.rack = rack
        self.outside = Outside(channel)
        self._file = memory_file
        self._on_release = on_release
        self._on_event = on_event
        self._healthy_after_s = healthy_after_s
        self._clock = clock
        self._serving_since = clock()
        self._retry = RetryTimer(clock)

    def restore(self) -> None:
        """Serve what ran last, from the disk alone; the last good release where that one fails.

        The channel isn't touched: this works without any network.
        """
        self.memory = mem.started(self._file.load())
        self._remember(self.memory)
        self.state = replace(self.state, pointer=self.memory.pointer)
        condemned = self.memory.condemned
        if condemned is not None and self.state.wanted == condemned.release:
            self.state = replace(self.state, rejected=(condemned.release, condemned.reason))
            self._note(condemned.reason)
        for digest in dict.fromkeys((self.memory.running, self.memory.good)):
            if digest is not None and self._restored(digest):
                break
        self.rack.pin(good=self.memory.good)
        self._tell("started", f"the runtime started; start {self.memory.starts} on this device")

    def _restored(self, digest: str) -> bool:
        try:
            self.rack.restore(digest)
        except Exception as error:  # noqa: BLE001 - engines raise anything
            self._note(f"cannot start with release {short(digest)}: {_said(error)}")
            return False
        self.state = replace(self.state, running=digest)
        self._remember(replace(self.memory, running=digest))
        self._serves()
        return True

    def close(self) -> None:
        """Remember that this process ends in order."""
        self._remember(replace(self.memory, stopped=True))

    # ---------------------------------------------------------------------------------------- turn

    def poll(self) -> None:
        """Take in what has changed outside: the pointer, the access, the time."""
        try:
            data, renewed = self.outside.look()
        except EdgeFleetError as error:
            self._note(f"channel: {error.message}")
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
        if self._proven_in_s() == 0:
            self._remember(mem.proven(self.memory))
            self.rack.pin(good=self.memory.good)

    def step(self) -> bool:
        """Carry out the next action; False when there is none."""
        action = m.decide(self.state)
        if isinstance(action, m.Rest | m.Wait):
            return False
        try:
            event = self._perform(action)
        except CancelledError:
            return True  # something changed outside meanwhile: look again
        except EdgeFleetError as error:
            if isinstance(error, AccessDeniedError):
                self.outside.refused(error)
            event = self._failed(action, m.failure(action.release, error))
        except Exception as error:  # noqa: BLE001 - serving goes on whatever engines raise
            _log.exception("release %s", short(action.release))
            event = self._failed(action, m.Failed(action.release, _said(error)))
        self.state = m.apply(self.state, event)
        return True

    def due_in_s(self) -> float | None:
        """Seconds until `poll` has something to do, whatever happens outside; None for never."""
        times = [at for at in (self._retry.due_in_s(), self._proven_in_s()) if at is not None]
        return min(times) if times else None

    @property
    def telemetry(self) -> TelemetryPolicy:
        """What the running release asks to be recorded and reported."""
        running = self.rack.running
        return running.acquired.release.telemetry if running else TelemetryPolicy()

    def models(self) -> tuple[ModelReport, ...]:
        """What a report says of the models here: those that run, then those that don't yet."""
        coming = describe_coming(self.rack.candidate, self.state.progress)
        return describe_running(self.rack.running) + (coming or self.given_up)

    def _offer(self, data: bytes) -> None:
        try:
            pointer = read_pointer(data)
            state = m.offer(self.state, pointer, now=datetime.now(UTC))
            if state.pointer != self.state.pointer:
                memory = mem.taken(self.memory, pointer)
                self._file.save(memory)
                point("pointer.taken")
                self.memory, self.errors, self.given_up = memory, (), ()
                self._retry.reset()
            self.state = state
        except StorageFullError as error:
            self._note(f"cannot take the pointer: {error.message}")
            self._retry.wait()
            return  # not taken in: the next turn tries again
        except EdgeFleetError as error:
            self._note(f"pointer refused: {error.message}")
        self.outside.take(data)

    # ------------------------------------------------------------------------------------- actions

    def _perform(self, action: m.Fetch | m.Advance | m.Swap | m.Reject) -> m.Event:
        match action:
            case m.Fetch(release):
                models = self.rack.fetch(release, lambda: self.outside.sources(self.state.pointer))
                if self.rack.kept is None:
                    self.state = m.apply(self.state, m.Unkept())
                return m.Fetched(release, models)
            case m.Advance():
                return self._advance(action)
            case m.Swap(release):
                return self._swap(release)
            case m.Reject(release, reason):
                self.given_up = describe_coming(self.rack.candidate, self.state.progress)
                self.rack.discard()
                self._remember(mem.given_up(self.memory, release))
                self._note(reason)
                self._tell("release-rejected", f"release {short(release)}: {reason}")
                return m.Rejected(release, reason)

    def _advance(self, action: m.Advance) -> m.Event:
        if action.to is m.Stage.LOADED:
            self._save(mem.tried(self.memory, action.release))
        try:
            advanced = self.rack.advance(action.release, action.model, action.to)
        except (IntegrityError, NotFoundError) as error:
            if action.to is not m.Stage.VERIFIED:
                raise
            self._note(error.message)
            return m.Damaged(action.release, error.message)
        if not advanced:
            return m.Damaged(action.release, "the release on its way is no longer at hand")
        return m.Reached(action.release, action.model, action.to)

    def _swap(self, release: str) -> m.Event:
        slot = self.rack.ready(release)
        if slot is None:
            self.state = m.apply(self.state, m.Unkept())
            return m.Damaged(release, "the release that was loaded is no longer at hand")
        self._save(mem.swapped(self.memory, release))
        point("swap.saved")
        self.rack.swap(slot)
        self.given_up = ()
        self._retry.reset()
        self._serves()
        self._tell("release-active", f"release {short(release)} serves")
        return m.Swapped(release, self.rack.kept.digest if self.rack.kept else None)

    def _failed(self, action: m.Action, event: m.Failed) -> m.Failed:
        """Take note of a failure, and of when to try again."""
        if isinstance(action, m.Advance) and self.rack.candidate is not None:
            self.rack.candidate.units[action.model].reason = event.reason
        if event.waits:
            self._note(event.reason)
            self._retry.wait()
        return event

    # -------------------------------------------------------------------------------------- helpers

    def _serves(self) -> None:
        self._serving_since = self._clock()
        if self.rack.running is not None:
            self._on_release(self.rack.running.acquired.release)

    def _proven_in_s(self) -> float | None:
        """Seconds until the release on trial counts as good; None when none on trial serves."""
        trial = self.memory.trial
        if trial is None or trial.release != self.state.running:
            return None
        return max(0.0, self._serving_since + self._healthy_after_s - self._clock())

    def _save(self, memory: mem.Memory) -> None:
        self._file.save(memory)
        self.memory = memory

    def _remember(self, memory: mem.Memory) -> None:
        """Save what may get lost without harm: a full disk must not stop what serves."""
        self.memory = memory
        try:
            self._file.save(memory)
        except OSError as error:
            self._note(f"cannot save the runtime's state: {_said(error)}")

    def _note(self, error: str) -> None:
        _log.warning("%s", error)
        self.errors = (error, *(known for known in self.errors if known != error))[:ERRORS_KEPT]

    def _tell(self, what: str, message: str) -> None:
        self._on_event(HealthEvent(what=what, message=message))


def _said(error: Exception) -> str:
    return (
        error.message if isinstance(error, EdgeFleetError) else f"{type(error).__name__}: {error}"
    )
