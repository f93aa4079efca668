"""Drift of a fleet: windows of sketches merged over devices and weeks, held against the reference.

A fleet may stand still while one of its devices moves, and a device that saw little says little: so
features are judged for devices, groups and the fleet, each on all that was merged for it. Beside
it stands what the devices said themselves.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.analysis.drift_report import DriftReport
from edgefleet.analysis.drift_rows import (
    LEVELS,
    Distribution,
    FeatureDrift,
    Level,
    Stretch,
    UnitDrift,
)
from edgefleet.analysis.gathering import Gathering, count_of
from edgefleet.analysis.windows import FLEET, Windows
from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.protocol.drift import Limits, compare
from edgefleet.protocol.names import parse_reference
from edgefleet.protocol.sketch import (
    ClassSketch,
    NumberSketch,
    bins_of,
    mass_by_class,
    quantiles,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet.analysis.windows import Place, Whole
    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.telemetry import Telemetry

_BINS = 24  # of a distribution that is shown
_TAIL = 0.005  # of a distribution, on either side, that goes into its outermost bin
_MOST_CLASSES = 32  # that are shown


def drift_of(
    model: str,
    *,
    telemetry: Telemetry,
    registry: Registry,
    places: Mapping[str, Place],
    since: datetime | None = None,
    until: datetime | None = None,
    only_placed: bool = False,
    by: Level = "device",
    limits: Limits | None = None,
) -> DriftReport:
    """Read the windows of a model's sketches and judge them.

    Args:
        model: name for all of its versions, or a reference to one.
        telemetry: where the windows are.
        registry: where the references are.
        places: devices by name.
        since: of the windows' events.
        until: likewise.
        only_placed: leave out devices that have no place.
        by: the finest level that is judged; what is coarser comes along.
        limits: from where on a distance counts; None for the customary ones.

    Raises:
        NotFoundError: the registry has no such model or version.
        InvalidInputError: there is no such level.
        MissingExtraError: the datasketches library isn't installed.
    """
    if by not in LEVELS:
        raise InvalidInputError(f"no level {by!r}", cure=f"use one of {', '.join(LEVELS)}")
    named = parse_reference(model)
    versions = registry.versions(named.name)
    if named.tag is not None or named.digest is not None:
        versions = (registry.get(model),)
    elif not versions:
        there = ", ".join(registry.list()) or "none yet; push one"
        raise NotFoundError(f"no model {named.name!r}", cure=f"models there are: {there}")
    query = telemetry.query(kind="sketch", model=named.name, since=since, until=until)
    windows = Windows(registry, versions, places, by)
    for event in query:
        if not only_placed or event.device in places:
            windows.take(event)
    units: list[UnitDrift] = []
    features: list[FeatureDrift] = []
    shown: list[Distribution] = []
    timeline: list[Stretch] = []
    limits = limits or Limits()
    for whole in windows.wholes.values():
        for level in LEVELS[LEVELS.index(by) :]:
            for unit in _units(whole, windows, by, level):
                judged = _judged(whole, unit, limits)
                features += judged
                units.append(_over_all(whole, unit, judged))
                if level == "fleet":
                    shown += _distributions(whole, unit.sketches)
        timeline += _timeline(whole, limits)
    serving = (name for name, place in places.items() if named.name in place.serves)
    return DriftReport(
        model=model,
        since=since,
        until=until,
        units=tuple(sorted(units, key=_badness)),
        features=tuple(sorted(features, key=_badness)),
        timeline=tuple(timeline),
        distributions=tuple(shown),
        silent=tuple(sorted(name for name in serving if name not in windows.heard)),
        unreferenced=windows.unreferenced,
        set_aside=tuple(windows.set_aside),
        set_aside_count=windows.set_aside_count,
        unreadable=query.unreadable,
    )


class _Unit(NamedTuple):
    """A device, a group or the fleet, with what was merged for it."""

    level: Level
    name: str
    sketches: Gathering
    members: list[str]


def _units(whole: Whole, windows: Windows, by: Level, level: Level) -> Iterator[_Unit]:
    """The units of a level, their sketches merged from those of the finest."""
    merged = whole.units
    if level != by:
        merged = {}
        for name, gathering in whole.units.items():
            above = windows.unit_of(name, level) if by == "device" else FLEET
            merged.setdefault(above, Gathering(whole.reference)).absorb(gathering)
    members: dict[str, list[str]] = {}
    for device in whole.heard:
        members.setdefault(windows.unit_of(device, level), []).append(device)
    for name, devices in members.items():
        yield _Unit(level, name, merged.get(name, Gathering(whole.reference)), devices)


def _judged(whole: Whole, unit: _Unit, limits: Limits) -> list[FeatureDrift]:
    rows = []
    for feature, reference in whole.reference.items():
        seen = unit.sketches.sketch(feature)
        found = compare(reference, seen, limits, features=len(whole.reference))
        rows.append(
            FeatureDrift(
                version=whole.version,
                level=unit.level,
                unit=unit.name,
                feature=feature,
                verdict=found.verdict,
                why=found.why,
                count=found.count,
                psi=found.psi,
                ks=found.ks,
                js=found.js,
                missing=found.missing,
                outside=found.outside,
                ks_noise=found.ks_noise,
                own=whole.own(unit.members, feature),
            )
        )
    return rows


def _over_all(whole: Whole, unit: _Unit, judged: list[FeatureDrift]) -> UnitDrift:
    heard = [whole.heard[device] for device in unit.members]
    first = min(judged, key=_badness)
    due_s = whole.span_s * len(heard)
    return UnitDrift(
        version=whole.version,
        level=unit.level,
        unit=unit.name,
        verdict=first.verdict,
        why=f"{first.feature}: {first.why}",
        devices=len(heard),
        windows=sum(one.windows for one in heard),
        covered=min(1.0, sum(one.covered_s for one in heard) / due_s) if due_s else 0.0,
        requests=sum(one.requests for one in heard),
        own=whole.own(unit.members),
    )


def _badness(row: UnitDrift | FeatureDrift) -> tuple[Any, ...]:
    worse = ("moved", "watch", "stable", "unknown").index(row.verdict)
    psi = -(row.psi or 0.0) if isinstance(row, FeatureDrift) else 0.0
    feature = row.feature if isinstance(row, FeatureDrift) else ""
    return (-LEVELS.index(row.level), worse, psi, row.unit, row.version, feature)


def _timeline(whole: Whole, limits: Limits) -> Iterator[Stretch]:
    for number, gathering in sorted(whole.stretches.items()):
        for feature, reference in whole.reference.items():
            seen = gathering.sketch(feature)
            found = compare(reference, seen, limits, features=len(whole.reference))
            yield Stretch(
                version=whole.version,
                feature=feature,
                start=datetime.fromtimestamp(number * whole.stretch_s, UTC),
                end=datetime.fromtimestamp((number + 1) * whole.stretch_s, UTC),
                verdict=found.verdict,
                psi=found.psi,
            )


def _distributions(whole: Whole, gathering: Gathering) -> Iterator[Distribution]:
    for feature, reference in whole.reference.items():
        seen = gathering.sketch(feature)
        if not count_of(reference) or not count_of(seen):
            continue
        if isinstance(reference, NumberSketch) and isinstance(seen, NumberSketch):
            edges = _edges(reference, seen)
            yield Distribution(
                version=whole.version,
                feature=feature,
                edges=tuple(edges),
                reference=tuple(bins_of(reference, edges[1:-1])),
                seen=tuple(bins_of(seen, edges[1:-1])),
            )
        elif isinstance(reference, ClassSketch) and isinstance(seen, ClassSketch):
            counts = {**seen.counts, **reference.counts}
            often = sorted(counts, key=lambda key: -counts[key])[:_MOST_CLASSES]
            keys = sorted(often, key=lambda key: (len(key), key))
            yield Distribution(
                version=whole.version,
                feature=feature,
                classes=tuple(keys),
                reference=tuple(mass_by_class(reference, keys)),
                seen=tuple(mass_by_class(seen, keys)),
            )


def _edges(reference: NumberSketch, seen: NumberSketch) -> list[float]:
    """Edges of bins of one width that hold nearly all of both, in order, no two the same."""
    ends = [
        end
        for sketch in (reference, seen)
        for end in quantiles(sketch, [_TAIL, 1.0 - _TAIL])
        if math.isfinite(end)
    ]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    if not high > low:
        low, high = low - 0.5, low + 0.5
    found = [low + (high - low) * i / _BINS for i in range(_BINS + 1)]
    return sorted({float(edge) for edge in found})
