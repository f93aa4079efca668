"""The reconciler's mind: a pure state machine over values, without clocks, disks or models.

A release's models go through `Stage` by `Stage`; when all of them passed their self-test, the
release is swapped in as a whole. Rules kept here, and held by property tests:

- Pointers rise. A lower one, another fleet's, a number used twice: refused, and nothing changes.
- What runs changes only by `Swapped`, to the release wanted, after every model was tested; and by
  `WentBack`, to a release that ran before, when the one that runs broke its budget or an operator
  ordered it back.
- Nothing runs only between `Unloaded` and what follows it: the new release, or the old one again.
- A release that failed is not tried again until a newer pointer comes (or the runtime restarts).
  One that was ordered back isn't, over restarts too.
- What cannot go on for reasons outside (no network, expired access, a full disk) waits; it isn't
  rejected. What runs goes on running meanwhile.
- News of a release that is no longer wanted changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from edgefleet.errors import AccessDeniedError, DocumentError, EdgeFleetError
from edgefleet.protocol.pointer import Pointer, check_successor
from edgefleet_runtime.reconciler.steps import (
    Action,
    Advance,
    Broke,
    Damaged,
    Event,
    Failed,
    Fetch,
    Fetched,
    GoBack,
    Key,
    Ordered,
    Reached,
    Reject,
    Rejected,
    Reload,
    Reloaded,
    Rest,
    Retry,
    Stage,
    Swap,
    Swapped,
    Unkept,
    Unload,
    Unloaded,
    Wait,
    WentBack,
)

if TYPE_CHECKING:
    from datetime import datetime

    from edgefleet.protocol.report import RolledBack
    from edgefleet.protocol.report import State as ReportState

__all__ = [
    "Action",
    "Advance",
    "Broke",
    "Damaged",
    "Event",
    "Failed",
    "Fetch",
    "Fetched",
    "GoBack",
    "Key",
    "Ordered",
    "Progress",
    "Reached",
    "Reject",
    "Rejected",
    "Reload",
    "Reloaded",
    "Rest",
    "Retry",
    "Stage",
    "State",
    "Swap",
    "Swapped",
    "Unkept",
    "Unload",
    "Unloaded",
    "Wait",
    "WentBack",
    "apply",
    "condition",
    "decide",
    "failure",
    "offer",
]

MAX_REPAIRS = 2  # times that damaged blobs of one release are fetched again


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A release on its way.

    Attributes:
        release: its digest.
        stages: of each model; None until the release was fetched.
        alone: whether it fits into memory only when nothing else is loaded.
        repairs: how often damaged blobs were fetched again.
        failed: why it must be rejected, once that is known.
        waits: why it can't go on now.
    """

    release: str
    stages: dict[Key, Stage] | None = None
    alone: bool = False
    repairs: int = 0
    failed: str | None = None
    waits: str | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """All that the next action depends on.

    Attributes:
        device: the device's name, which decides its cohort.
        fleet: UUID given at enrolment; None to belong to the first pointer's fleet.
        pointer: the highest one taken.
        running: release that answers requests.
        kept: release that is still loaded and can come back at once.
        progress: the wanted release on its way.
        rejected: digest of the wanted release and why it failed.
        parked: release that was unloaded to make room for the one on its way.
        broken: digest of the running release and why it must go: how it broke its budget, or that
            it was ordered back.
        order: an operator's, not to serve the wanted release.
    """

    device: str
    fleet: str | None = None
    pointer: Pointer | None = None
    running: str | None = None
    kept: str | None = None
    progress: Progress | None = None
    rejected: tuple[str, str] | None = None
    parked: str | None = None
    broken: tuple[str, str] | None = None
    order: RolledBack | None = None

    @property
    def wanted(self) -> str | None:
        """Digest of the release that the pointer gives this device."""
        return None if self.pointer is None else self.pointer.release_for(self.device)


def decide(state: State) -> Action:  # noqa: C901, PLR0911 - one an action
    """What to do next."""
    wanted, progress = state.wanted, state.progress
    if state.broken is not None:
        return GoBack(*state.broken)
    if state.parked is not None and not _moves(progress):
        return Reload(state.parked)
    if wanted is None or wanted == state.running:
        return Rest()
    if state.rejected is not None and state.rejected[0] == wanted:
        return Rest()
    if progress is not None and progress.failed is not None:
        return Reject(wanted, progress.failed)
    if progress is not None and progress.waits is not None:
        return Wait(progress.waits)
    if wanted == state.kept:
        return Swap(wanted)
    if progress is None or progress.stages is None:
        return Fetch(wanted)
    unready = {key: stage for key, stage in progress.stages.items() if stage < Stage.TESTED}
    if not unready:
        return Swap(wanted)
    # All models take a stage before one takes the next: a damaged file is found before any memory
    # is spent.
    model = min(unready, key=lambda key: (unready[key], key))
    to = Stage(unready[model] + 1)
    if to is Stage.LOADED and progress.alone and state.running is not None:
        return Unload(wanted)
    return Advance(wanted, model, to)


def _moves(progress: Progress | None) -> bool:
    """Whether a release that others made room for goes on by itself."""
    return progress is not None and progress.stages is not None and progress.waits is None


def offer(state: State, pointer: Pointer, *, now: datetime) -> State:
    """The state after a pointer came.

    Args:
        state: before.
        pointer: decoded, its required features known.
        now: the device's clock, held against ``expires`` only.

    Raises:
        DocumentError: the pointer is refused, see `check_successor`, or it is new and has expired.
    """
    if not check_successor(state.pointer, pointer, fleet=state.fleet):
        return state
    if pointer.expires is not None and pointer.expires <= now:
        raise DocumentError(
            f"pointer {pointer.pair} expired at {pointer.expires.isoformat()}",
            cure="publish a new pointer, or set the device's clock",
        )
    broken = None if state.order is not None else state.broken
    state = replace(state, pointer=pointer, rejected=None, broken=broken, order=None)
    progress = state.progress
    if progress is not None and (progress.release != state.wanted or progress.failed):
        progress = None
    if progress is not None:
        progress = replace(progress, waits=None)
    return replace(state, progress=progress)


def apply(  # noqa: C901, PLR0911, PLR0912 - one an event
    state: State, event: Event
) -> State:
    """The state after something happened."""
    match event:
        case Swapped(release, kept):
            if release != state.wanted:
                return state
            return replace(
                state, running=release, kept=kept, progress=None, parked=None, broken=None
            )
        case Rejected(release, reason):
            if release != state.wanted:
                return state
            return replace(state, progress=None, rejected=(release, reason))
        case Broke(release, reason):
            return replace(state, broken=(release, reason)) if release == state.running else state
        case Ordered(order):
            return _ordered(state, order)
        case WentBack():
            return _went_back(state, event)
        case Unloaded(release):
            if release != state.wanted or state.running is None:
                return state
            return replace(state, running=None, kept=None, parked=state.running, broken=None)
        case Reloaded(release, running):
            if release != state.parked:
                return state
            progress = state.progress and replace(state.progress, stages=None)
            return replace(state, running=running, parked=None, progress=progress)
        case Unkept():
            return replace(state, kept=None)
        case Retry():
            progress = state.progress and replace(state.progress, waits=None)
            return replace(state, progress=progress)
        case _:
            if event.release != state.wanted or event.release == state.running:
                return state
            progress = state.progress or Progress(release=event.release)
            return replace(state, progress=_advanced(progress, event))


def _ordered(state: State, order: RolledBack) -> State:
    refused = state.rejected is not None and state.rejected[0] == order.release
    if order.release != state.wanted or refused:
        return state
    if order.release == state.running:
        return replace(state, broken=(order.release, str(order)), order=order)
    progress = state.progress or Progress(release=order.release)
    return replace(state, progress=replace(progress, failed=str(order)), order=order)


def _went_back(state: State, event: WentBack) -> State:
    if event.release != state.running:
        return state
    if event.to is None:  # nothing else could serve: better this one than none
        return replace(state, broken=None, order=None)
    rejected = (event.release, event.reason) if event.release == state.wanted else state.rejected
    return replace(state, running=event.to, kept=None, broken=None, rejected=rejected)


def _advanced(  # noqa: PLR0911 - one an event
    progress: Progress, event: Fetched | Reached | Damaged | Failed
) -> Progress:
    match event:
        case Fetched(models=models, alone=alone):
            return replace(progress, stages=dict.fromkeys(models, Stage.FETCHED), alone=alone)
        case Reached(model=model, stage=stage):
            stages = progress.stages or {}
            if stages.get(model, 0) != stage - 1:
                return progress  # stages are taken one by one, whoever says otherwise
            return replace(progress, stages={**stages, model: stage})
        case Damaged(reason=reason):
            if progress.repairs >= MAX_REPAIRS:
                return replace(progress, failed=reason)
            return replace(progress, stages=None, repairs=progress.repairs + 1)
        case Failed(reason=reason, waits=True):
            return replace(progress, waits=reason)
        case Failed(reason=reason):
            return replace(progress, failed=reason)


def failure(release: str, error: EdgeFleetError) -> Failed:
    """What an error means for a release: whether it waits, or will be rejected."""
    return Failed(
        release, error.message, waits=error.retryable or isinstance(error, AccessDeniedError)
    )


def condition(state: State) -> ReportState:
    """The state as a report names it."""
    if state.wanted is None:
        return "idle" if state.running is None else "active"
    match decide(state):
        case Rest():
            return "active" if state.wanted == state.running else "rejected"
        case Wait():
            return "waiting"
        case _:
            return "working"
