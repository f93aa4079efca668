"""Drift: how far what was seen lies from a reference, by sketches alone.

A device holds its windows against the reference in its bundle with no network; the SDK does the
same with what it merged over devices and weeks: both through here. Four distances, each blind to
something that another sees:

- PSI over ten bins of equal reference mass, which bends with anything that moves mass;
- Kolmogorov and Smirnov's KS, the largest distance of the two distribution functions, from 0 to 1;
- Jensen and Shannon's distance, the root of their divergence in bits, from 0 to 1, over the same
  bins: unlike PSI it stays bounded where a bin is empty;
- how much more is missing, and how much lies outside of all that the reference saw.

Error of the sketches (k = 400): each distribution function is off by at most `RANK_ERROR` at every
point at once, and the mass of a bin by `MASS_ERROR`, each with 99 % confidence. KS is therefore off
by at most twice the first, the share outside the range by as much. PSI and the Jensen-Shannon
distance have no such simple bound; over 10 bins the tests hold them to 0.02 and 15 % of themselves,
and to 0.02. Classes are counted, so nothing of this applies to them.

Small windows differ from the reference by chance. Nothing counts that `edgefleet.protocol.chance`
explains, so that where nothing has moved fewer than 1 % of windows get another verdict than
``stable``, however many features they have; a reference in a bundle counts as its quantile points.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.chance import pooled, psi_noise, share_bound, tempered
from edgefleet.protocol.sketch import (
    ClassSketch,
    NumberSketch,
    bins_of,
    cumulative,
    extremes,
    mass_by_class,
    psi,
    split_points,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

RANK_ERROR = 0.0068
MASS_ERROR = 0.0086
CONFIDENCE = 1.63  # of KS's two-sample test at 1 %: sqrt(-ln(0.01 / 2) / 2)

Verdict = Literal["stable", "watch", "moved", "unknown"]
_ORDER: tuple[Verdict, ...] = ("unknown", "stable", "watch", "moved")


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """From where on a distance counts.

    Attributes:
        psi_watch: PSI from which a feature is watched; 0.1 by custom.
        psi_moved: PSI from which it has moved; 0.25 by custom.
        ks_moved: KS, beyond what sampling and sketches explain, from which it has moved.
        missing: growth of the missing share from which it has moved.
        outside: share beyond the reference's range from which it has moved.
        min_count: fewer values than this say nothing.
    """

    psi_watch: float = 0.1
    psi_moved: float = 0.25
    ks_moved: float = 0.2
    missing: float = 0.05
    outside: float = 0.05
    min_count: int = 100


class Drift(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One feature, held against its reference.

    Attributes:
        verdict: ``stable``, ``watch``, ``moved``, or ``unknown`` where too little was seen.
        why: what decided, in a phrase.
        count: values seen.
        psi: population stability index; None where nothing was seen.
        ks: largest distance of the distribution functions; of classes, of their shares' sums.
        js: Jensen-Shannon distance, 0 to 1.
        missing: growth of the missing share; negative where less is missing.
        outside: share of what was seen beyond the reference's range, or in classes that it has not.
        ks_noise: KS that samples of these sizes, and the sketches, give where nothing has moved.
        psi_noise: PSI that samples of these sizes give where nothing has moved. What is held
            against it is `edgefleet.protocol.chance.tempered`, which empty bins don't inflate.
    """

    verdict: Verdict
    why: str
    count: int
    psi: float | None = None
    ks: float | None = None
    js: float | None = None
    missing: float = 0.0
    outside: float = 0.0
    ks_noise: float = 0.0
    psi_noise: float = 0.0


class _Beyond(NamedTuple):
    """Which of the distances are more than chance gives."""

    psi: bool = False
    missing: bool = False
    outside: bool = False


def compare(
    reference: NumberSketch | ClassSketch,
    seen: NumberSketch | ClassSketch,
    limits: Limits | None = None,
    *,
    features: int = 1,
) -> Drift:
    """Hold what was seen against the reference.

    Args:
        reference: what was there when the model was judged.
        seen: what came since.
        limits: from where on a distance counts; None for the customary ones.
        features: how many are judged together, of each of which chance may make something.

    Raises:
        InvalidInputError: one is of numbers and the other of classes, the reference is empty, or a
            sketch is damaged.
        MissingExtraError: the datasketches library isn't installed.
    """
    limits = limits or Limits()
    if isinstance(reference, NumberSketch) and isinstance(seen, NumberSketch):
        found = _numbers(reference, seen, limits, max(1, features))
    elif isinstance(reference, ClassSketch) and isinstance(seen, ClassSketch):
        found = _classes(reference, seen, limits, max(1, features))
    else:
        raise InvalidInputError(
            "one sketch is of numbers, the other of classes",
            cure="compare a feature with the reference of the same feature",
        )
    return found


def worst(found: Sequence[Drift]) -> Verdict:
    """The verdict on several features together: that of the worst."""
    return max((drift.verdict for drift in found), key=_ORDER.index, default="unknown")


def _numbers(reference: NumberSketch, seen: NumberSketch, limits: Limits, features: int) -> Drift:
    if not reference.count:
        raise _no_reference()
    missing = _share_missing(seen) - _share_missing(reference)
    totals = reference.count + reference.missing, seen.count + seen.missing
    most = share_bound(reference.missing, *totals, features=features)
    beyond = _Beyond(missing=_share_missing(seen) > most)
    if seen.count < limits.min_count:
        found = Drift(verdict="unknown", why="", count=seen.count, missing=missing)
        return _judged(found, limits, beyond)
    edges = split_points(reference)
    p, q = bins_of(reference, edges), bins_of(seen, edges)
    low, high = extremes(reference)
    points = sorted({*edges, low, high, *split_points(seen, 200), *split_points(reference, 200)})
    apart = zip(cumulative(reference, points), cumulative(seen, points), strict=True)
    (below,), (within,) = cumulative(seen, [low], inclusive=False), cumulative(seen, [high])
    outside = max(0.0, below + 1.0 - within)
    counts = reference.count, seen.count
    noise, differ = _by_chance(p, q, counts, features)
    beyond = beyond._replace(
        psi=differ,
        outside=outside > share_bound(1, *counts, features=features) + 2 * RANK_ERROR,
    )
    return _judged(
        Drift(
            verdict="unknown",
            why="",
            count=seen.count,
            psi=psi(p, q),
            ks=max((abs(one - other) for one, other in apart), default=0.0),
            js=_jensen_shannon(p, q),
            missing=missing,
            outside=outside,
            ks_noise=_noise(*counts) + 2 * RANK_ERROR,
            psi_noise=noise,
        ),
        limits,
        beyond,
    )


def _classes(reference: ClassSketch, seen: ClassSketch, limits: Limits, features: int) -> Drift:
    counts = sum(reference.counts.values()), sum(seen.counts.values())
    if not counts[0]:
        raise _no_reference()
    if counts[1] < limits.min_count:
        return _judged(Drift(verdict="unknown", why="", count=counts[1]), limits, _Beyond())
    keys = sorted(reference.counts.keys() | seen.counts.keys())
    p, q = mass_by_class(reference, keys), mass_by_class(seen, keys)
    new = sum(b for a, b in zip(p, q, strict=True) if a == 0)
    # As likely as one more of those that the reference saw once (Good and Turing).
    once = sum(count == 1 for count in reference.counts.values())
    noise, differ = _by_chance(p, q, counts, features)
    return _judged(
        Drift(
            verdict="unknown",
            why="",
            count=counts[1],
            psi=psi(p, q),
            ks=sum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2,
            js=_jensen_shannon(p, q),
            outside=new,
            ks_noise=_noise(*counts) * math.sqrt(len(keys)),
            psi_noise=noise,
        ),
        limits,
        _Beyond(psi=differ, outside=new > share_bound(once, *counts, features=features)),
    )


def _by_chance(
    p: Sequence[float], q: Sequence[float], counts: tuple[int, int], features: int
) -> tuple[float, bool]:
    """PSI's noise, and whether the shares differ by more."""
    fewer, others = pooled(p, q, *counts)
    noise = psi_noise(len(fewer), *counts, features=features)
    return noise, tempered(fewer, others) > noise


def _judged(found: Drift, limits: Limits, beyond: _Beyond) -> Drift:
    """The same with its verdict."""
    ks = (found.ks or 0.0) - found.ks_noise
    index = found.psi or 0.0
    rules: tuple[tuple[bool, Verdict, str], ...] = (
        (
            beyond.missing and found.missing > limits.missing,
            "moved",
            f"{found.missing:.1%} more are missing",
        ),
        (
            found.psi is None,
            "unknown",
            f"{found.count} values seen, {limits.min_count} needed",
        ),
        (
            beyond.outside and found.outside > limits.outside,
            "moved",
            f"{found.outside:.1%} outside the range seen",
        ),
        (
            beyond.psi and index > limits.psi_moved,
            "moved",
            f"PSI {index:.3g} is above {limits.psi_moved:g}",
        ),
        (ks > limits.ks_moved, "moved", f"KS {found.ks or 0.0:.3g}, {found.ks_noise:.2g} is noise"),
        (
            beyond.psi and index > limits.psi_watch,
            "watch",
            f"PSI {index:.3g} is above {limits.psi_watch:g}",
        ),
        (index > limits.psi_watch, "stable", f"PSI {index:.3g} may be chance"),
        (True, "stable", f"PSI {index:.3g}"),
    )
    verdict, why = next((verdict, why) for holds, verdict, why in rules if holds)
    return msgspec.structs.replace(found, verdict=verdict, why=why)


def _share_missing(sketch: NumberSketch) -> float:
    total = sketch.count + sketch.missing
    return sketch.missing / total if total else 0.0


def _noise(one: int, other: int) -> float:
    return CONFIDENCE * math.sqrt((one + other) / (one * other))


def _jensen_shannon(p: Sequence[float], q: Sequence[float]) -> float:
    """Root of the divergence in bits."""
    total = 0.0
    for a, b in zip(p, q, strict=True):
        middle = (a + b) / 2
        total += sum(x * math.log2(x / middle) for x in (a, b) if x > 0)
    return math.sqrt(max(0.0, total / 2))


def _no_reference() -> InvalidInputError:
    msg = "the reference saw nothing"
    return InvalidInputError(msg, cure="make the bundle again with calibration data")
