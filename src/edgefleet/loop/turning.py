"""Going through a turn: decide whether one begins, do its steps, keep its state.

Rules kept here:

- A step's effect comes before its state is written. A process that dies between the two does the
  step again, and every step finds what it did before.
- No step is begun by a process that lost the lease.
- What waits for something outside ends the call; nothing here runs in the background.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from edgefleet.loop import making, shipping, triggers
from edgefleet.loop.groups import active_model
from edgefleet.loop.record import LoopRecord, Turn, with_end
from edgefleet.loop.work import Waiting, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from edgefleet.loop.lease import Held
    from edgefleet.loop.record import Step
    from edgefleet.loop.sources import DriftSeen

_LOG = logging.getLogger(__name__)
NOW = "a person asked for it"

_STEPS: Mapping[Step, Callable[[Work, Turn], Turn]] = {
    "dataset": making.dataset,
    "train": making.train,
    "optimize": making.optimize,
    "compare": making.compare,
    "push": shipping.push,
    "approve": shipping.approve,
    "shadow": shipping.shadow,
    "promote": shipping.promote,
    "discard": shipping.discard,
}


def go_on(
    held: Held,
    work: Callable[[LoopRecord], Work],
    *,
    now: bool,
    wait: bool,
    pause: Callable[[], object],
    say: Callable[[str], object],
) -> tuple[LoopRecord, Turn | None]:
    """Go as far as it goes: to the end of the turn, or to what must be waited for.

    Args:
        held: the loop's state.
        work: what a step works with, by the state.
        now: begin a turn whatever the triggers say.
        wait: wait instead of ending the call.
        pause: waits until the next look then.
        say: told of each step.

    Returns:
        The state, and the turn that ended now; None where none did.
    """
    record = held.record
    while True:
        if record.turn is None:
            begun = begin(work(record), now=now)
            if begun is None:
                return held.change(lambda r: msgspec.structs.replace(r, waits="")), None
            say(f"turn {begun.number}: {begun.trigger}")
            record = held.change(lambda r, t=begun: msgspec.structs.replace(r, turn=t, waits=""))  # type: ignore[misc]
        try:
            record, ended = _step(held, work, record, say)
        except Waiting as waiting:
            record = held.change(lambda r, w=waiting: _waiting(r, w))  # type: ignore[misc]
            if not wait:
                return record, None
            pause()
            continue
        if ended is not None:
            return record, ended


def _waiting(record: LoopRecord, waiting: Waiting) -> LoopRecord:
    turn = waiting.turn or record.turn
    return msgspec.structs.replace(record, turn=turn, waits=waiting.why)


def _step(
    held: Held, work: Callable[[LoopRecord], Work], record: LoopRecord, say: Callable[[str], object]
) -> tuple[LoopRecord, Turn | None]:
    """Do one step; the turn where that was its last."""
    turn = record.turn
    assert turn is not None  # noqa: S101 - `go_on` has begun one
    here = work(record)
    if record.wished is not None and turn.step != "discard":
        wish = record.wished
        after = turn.discard(f"{wish.by} wants it: {wish.reason or 'no reason given'}")
    else:
        _LOG.info("%s, turn %s: %s", record.loop, turn.number, turn.step)
        after = _STEPS[turn.step](here, turn)
    if after.outcome is None:
        if after.step != turn.step:
            say(_told(turn, after))
        return held.change(lambda r: msgspec.structs.replace(r, turn=after, waits="")), None
    outcome, at = after.outcome, here.now()
    ended = held.change(lambda r: with_end(r, after, outcome, at))
    here.sweep(after)
    say(f"turn {after.number}: {outcome}: {after.why}")
    return ended, ended.history[-1]


def _told(before: Turn, after: Turn) -> str:
    why = f": {after.why}" if after.why and after.why != before.why else ""
    return f"turn {after.number}: {before.step} done, next: {after.step}{why}"


def begin(work: Work, *, now: bool) -> Turn | None:
    """The next turn, where a trigger holds, a person asked and no limit forbids it."""
    held = [reading for reading in readings(work) if reading.holds]
    if not now and not held:
        return None
    why = NOW if now else "; ".join(f"{reading.name}: {reading.says}" for reading in held)
    refused = triggers.refusal(work.spec.limits, work.record, work.now())
    if refused is not None:
        _LOG.warning("%s: no turn begins: %s", work.spec.name, refused)
        return None
    parent = active_model(work.fleet, work.spec.groups, work.spec.model)
    return Turn(
        number=work.record.number + 1,
        began=work.now(),
        trigger=why,
        since=_since(work),
        parent=f"{parent.name}:{parent.version}",
        parent_bundle=parent.bundle,
    )


def _since(work: Work) -> datetime | None:
    """From when on samples count."""
    wanted = work.spec.dataset.since
    return last_began(work.record) if wanted is None else work.now() - wanted


def last_began(record: LoopRecord) -> datetime | None:
    """When the turn before began; None before the first."""
    return record.history[-1].began if record.history else None


def _labels_taken(record: LoopRecord) -> datetime | None:
    """When the turn before took its samples, for which it may have waited long."""
    samples = record.history[-1].samples if record.history else None
    return last_began(record) if samples is None or samples.taken is None else samples.taken


def _drift(work: Work, last: datetime | None) -> DriftSeen:
    """What devices saw with the version that is active: earlier ones are over."""
    active = active_model(work.fleet, work.spec.groups, work.spec.model)
    version = f"{active.name}:{active.version}"
    return work.sources.drift(version, work.spec.groups, last or _since(work))


def readings(work: Work) -> Iterator[triggers.Reading]:
    """The triggers of the loop as they stand now."""
    wanted, spec = work.spec.trigger, work.spec
    last = last_began(work.record)
    found = (
        triggers.schedule_reading(wanted, last or work.record.created, work.now()),
        triggers.labelled_reading(
            wanted,
            work.sources.new_labels(spec.model, spec.groups, _labels_taken(work.record)),
        )
        if wanted.labelled is not None
        else None,
        triggers.drift_reading(wanted, _drift(work, last)) if wanted.drift is not None else None,
    )
    return (reading for reading in found if reading is not None)
