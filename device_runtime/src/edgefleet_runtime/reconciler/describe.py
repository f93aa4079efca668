"""What a report says of the models of a release in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from edgefleet.protocol.report import ModelReport, ModelState
from edgefleet_runtime.reconciler.machine import Key, Progress, Stage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgefleet_runtime.reconciler.improve import Improver
    from edgefleet_runtime.reconciler.slot import Slot, Unit

_STATES: dict[Stage, ModelState] = {
    Stage.FETCHED: "fetched",
    Stage.VERIFIED: "verified",
    Stage.LOADED: "loaded",
    Stage.WARMED: "warmed",
    Stage.TESTED: "self-tested",
}


def describe_running(slot: Slot | None, improver: Improver) -> tuple[ModelReport, ...]:
    """The models that answer requests."""
    found = []
    for unit in slot.units.values() if slot else ():
        variants, building = improver.report(unit)
        found.append(replace(_report(unit, "active"), variants=variants, building=building))
    return tuple(found)


def describe_coming(slot: Slot | None, progress: Progress | None) -> tuple[ModelReport, ...]:
    """The models of the release on its way, each as far as it got."""
    if slot is None or progress is None or progress.release != slot.digest:
        return ()
    return tuple(
        _report(unit, _state(unit, progress.stages.get(key) if progress.stages else None, progress))
        for key, unit in slot.units.items()
    )


def describe_taken_back(
    slot: Slot, culprits: Iterable[Key], reason: str
) -> tuple[ModelReport, ...]:
    """The models of a release that was taken back because of some, with their figures."""
    for culprit in culprits:
        slot.units[culprit].reason = reason
    return tuple(
        _report(unit, "rejected" if unit.reason else "self-tested", figures=True)
        for unit in slot.units.values()
    )


def _state(unit: Unit, stage: Stage | None, progress: Progress) -> ModelState:
    if unit.reason is not None:
        return "waiting" if progress.waits else "rejected"
    return _STATES[stage or Stage.FETCHED]


def _report(unit: Unit, state: ModelState, *, figures: bool = False) -> ModelReport:
    served, part = unit.served, unit.part
    counted = served if figures or state == "active" else None
    return ModelReport(
        name=part.model.name,
        version=part.model.version,
        bundle=part.model.bundle,
        role=part.model.role,
        variant=part.variant.name,
        why=part.why,
        engine=served.model.engine if served else None,
        providers=served.model.providers if served else (),
        state=state,
        self_test=unit.outcome,
        reason=unit.reason,
        inferences=counted.inferences if counted else 0,
        failures=counted.failures if counted else 0,
        latency_p50_us=counted.latency_p50_us if counted else None,
        shadow=unit.shadow.report() if unit.shadow else None,
    )
