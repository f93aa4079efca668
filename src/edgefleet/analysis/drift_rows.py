"""What a drift report is made of: a row a feature, a unit, a stretch of time, a distribution."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from edgefleet.interfaces.values import Value
from edgefleet.protocol.drift import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

Level = Literal["device", "group", "fleet"]
LEVELS: tuple[Level, ...] = ("device", "group", "fleet")
WORSE: tuple[Verdict, ...] = ("unknown", "stable", "watch", "moved")


class FeatureDrift(Value):
    """One feature of one unit, held against the reference of one bundle.

    Attributes:
        version: of the model.
        level: whether the unit is a device, a group or the fleet.
        unit: name of the device, ``deployer/name`` of the group, or ``fleet``.
        feature: as the bundle's reference names it.
        verdict: ``stable``, ``watch``, ``moved``, or ``unknown`` where too little was seen.
        why: what decided, in a phrase.
        count: values seen.
        psi: population stability index; None where too little was seen.
        ks: Kolmogorov and Smirnov's distance; for classes half of what shares differ by; likewise.
        js: Jensen and Shannon's distance; likewise.
        missing: growth of the missing share.
        outside: share outside of all that the reference saw.
        ks_noise: KS that sampling and sketches alone may give.
        own: the worst that its devices said themselves, in the newest window of each.
    """

    version: str
    level: Level
    unit: str
    feature: str
    verdict: Verdict
    why: str
    count: int
    psi: float | None = None
    ks: float | None = None
    js: float | None = None
    missing: float = 0.0
    outside: float = 0.0
    ks_noise: float = 0.0
    own: Verdict = "unknown"


class UnitDrift(Value):
    """A device, a group or the fleet, over all features.

    Attributes:
        version: of the model.
        level: device, group or fleet.
        unit: its name.
        verdict: that of its worst feature.
        why: that feature, and what decided.
        devices: how many devices' windows are in it.
        windows: how many windows are.
        covered: share of the time that they cover: of the time from the first to the last window of
            the version, times the devices. Little means that windows are missing.
        requests: how many were looked at.
        own: the worst that its devices said themselves, in the newest window of each.
    """

    version: str
    level: Level
    unit: str
    verdict: Verdict
    why: str
    devices: int
    windows: int
    covered: float
    requests: int
    own: Verdict = "unknown"


class Stretch(Value):
    """One feature of the fleet in a stretch of time; ``psi`` None where too little was seen."""

    version: str
    feature: str
    start: datetime
    end: datetime
    verdict: Verdict
    psi: float | None = None


class Distribution(Value):
    """How a feature was distributed in the reference and is in the fleet.

    Attributes:
        version: of the model.
        feature: its name.
        edges: of the bins of a numeric feature, ascending, one more than there are shares; empty
            for classes.
        classes: of a feature of classes; empty for a numeric one.
        reference: share of the reference in each bin or class.
        seen: share of what the fleet saw.
    """

    version: str
    feature: str
    edges: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    reference: tuple[float, ...] = ()
    seen: tuple[float, ...] = ()


class SetAside(Value):
    """A sketch, or a whole window where ``feature`` is empty, that couldn't be used."""

    device: str
    event: str
    feature: str
    why: str


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of some verdicts; ``unknown`` for none."""
    return max(verdicts, key=WORSE.index, default="unknown")
