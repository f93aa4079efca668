"""Whether a turn begins. Pure: what devices and labels say comes in."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.loop.spans import span_text

if TYPE_CHECKING:
    from datetime import datetime

    from edgefleet.loop.record import LoopRecord
    from edgefleet.loop.sources import DriftSeen
    from edgefleet.loop.spec import Limits, Trigger


class Reading(NamedTuple):
    """One trigger as it stands.

    Attributes:
        name: ``drift``, ``schedule`` or ``labelled``.
        holds: whether a turn begins.
        says: for people, with the figures.
    """

    name: str
    holds: bool
    says: str


def drift_reading(trigger: Trigger, seen: DriftSeen) -> Reading | None:
    """The trigger ``drift``; None where the loop has none."""
    wanted = trigger.drift
    if wanted is None:
        return None
    features = [said for said in seen.features.values() if said != "unknown"]
    devices = [said for said in seen.devices.values() if said != "unknown"]
    holds = _enough(features, wanted.features) and _enough(devices, wanted.devices)
    says = (
        f"{features.count('moved')} of {len(features)} features moved, "
        f"on {devices.count('moved')} of {len(devices)} devices"
    )
    names = seen.moved
    if names:
        says += ": " + ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return Reading("drift", holds, says)


def _enough(said: list[str], share: float) -> bool:
    moved = said.count("moved")
    return moved >= 1 and moved >= share * len(said)


def schedule_reading(trigger: Trigger, last: datetime, now: datetime) -> Reading | None:
    """The trigger ``schedule``: a time it names lies between the last turn and now."""
    if trigger.schedule is None:
        return None
    from cronsim import CronSim  # noqa: PLC0415 - an extra

    due = next(CronSim(trigger.schedule, last), None)
    if due is None:
        return Reading("schedule", holds=False, says=f"{trigger.schedule!r} names no time any more")
    text = f"{due:%Y-%m-%d %H:%M} UTC"
    if due <= now:
        return Reading("schedule", holds=True, says=f"was due at {text}")
    return Reading("schedule", holds=False, says=f"next at {text}")


def labelled_reading(trigger: Trigger, count: int) -> Reading | None:
    """The trigger ``labelled``."""
    if trigger.labelled is None:
        return None
    says = f"{count} of {trigger.labelled} new labelled samples"
    return Reading("labelled", holds=count >= trigger.labelled, says=says)


def refusal(limits: Limits, record: LoopRecord, now: datetime) -> str | None:
    """Why no turn may begin now, whatever its trigger; None where one may."""
    last = record.history[-1] if record.history else None
    if limits.every is not None and last is not None:
        left = last.began + limits.every - now
        if left > timedelta():
            return (
                f"turn {last.number} began less than {span_text(limits.every)} ago: "
                f"{span_text(left)} left"
            )
    left_hours = hours_left(limits, record, now)
    if left_hours is not None and left_hours <= 0:
        budget = limits.budget
        assert budget is not None  # noqa: S101 - else there is nothing left of it
        return f"{budget.training_hours:g} hours of training in {budget.days} days are spent"
    return None


def hours_left(limits: Limits, record: LoopRecord, now: datetime) -> float | None:
    """What of the budget is left; None for no budget."""
    if limits.budget is None:
        return None
    since = now - timedelta(days=limits.budget.days)
    spent = sum(turn.run_hours for turn in record.history if turn.began >= since)
    return limits.budget.training_hours - spent
