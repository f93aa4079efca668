"""Reads the windows of a model's sketches: what is merged with what.

Rules kept here:

- Windows of different bundles are never merged: each has a reference of its own.
- A window counts by the bundle that it names only where that is a version of the model in the
  registry, so that no device has us look up what it likes.
- What can't be used is told: damaged sketches, windows without a reference.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.analysis.drift_rows import Level, SetAside, worst
from edgefleet.analysis.gathering import Gathering
from edgefleet.analysis.references import reference_of
from edgefleet.errors import IntegrityError, InvalidInputError, NotFoundError
from edgefleet.protocol.event import SketchWindow
from edgefleet.protocol.sketch import read_sketch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from edgefleet.interfaces.registry import Registry
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet.protocol.drift import Verdict
    from edgefleet.protocol.event import Event
    from edgefleet.protocol.sketch import ClassSketch, NumberSketch

    Sketch = NumberSketch | ClassSketch

FLEET = "fleet"
NOWHERE = "no group"  # where devices belong that the fleet doesn't list any more
MAX_TOLD = 100  # of what was set aside, or has no reference
MAX_STRETCHES = 96  # of a version's time; beyond them, two become one
_HOUR_S = 3600.0
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)  # far enough from where Python's calendar ends


class Place(NamedTuple):
    """Where a device is.

    Attributes:
        group: its group's ``deployer/name``.
        serves: names of the models that it reports.
        dropped: how many events it reports that it dropped, ever.
    """

    group: str
    serves: frozenset[str] = frozenset()
    dropped: int = 0


class Heard:
    """What came of one device: figures of its windows, and what it says itself in its newest."""

    def __init__(self) -> None:
        self.windows, self.requests, self.covered_s = 0, 0, 0.0
        self.end: datetime | None = None
        self.verdict: Verdict = "unknown"
        self.own: dict[str, Verdict] = {}

    def add(self, window: SketchWindow, features: Iterable[str]) -> None:
        """Count a window."""
        self.windows += 1
        self.requests += window.requests
        self.covered_s += max(0.0, (window.end - window.start).total_seconds())
        if self.end is None or window.end > self.end:
            self.end, self.verdict = window.end, window.verdict
            self.own = {n: window.drift[n].verdict for n in features if n in window.drift}


class Whole:
    """All windows of one version.

    Args:
        version: of the model.
        reference: from its bundle.

    Attributes:
        units: sketches by unit of the finest level.
        heard: by device.
        stretches: sketches of the fleet by time: number n begins at ``n * stretch_s`` since 1970.
        stretch_s: length of a stretch in seconds.
        first: when the first window begins.
        last: when the last one ends.
    """

    def __init__(self, version: str, reference: Mapping[str, Sketch]) -> None:
        self.version, self.reference = version, reference
        self.units: dict[str, Gathering] = {}
        self.heard: dict[str, Heard] = {}
        self.stretches: dict[int, Gathering] = {}
        self.stretch_s = _HOUR_S
        self.first: datetime | None = None
        self.last: datetime | None = None

    @property
    def span_s(self) -> float:
        """Seconds from the beginning of the first window to the end of the last."""
        if self.first is None or self.last is None:
            return 0.0
        return (self.last - self.first).total_seconds()

    def count(self, device: str, window: SketchWindow) -> None:
        """Count a window, whether its sketches can be used or not."""
        self.heard.setdefault(device, Heard()).add(window, self.reference)
        self.first = window.start if self.first is None else min(self.first, window.start)
        self.last = window.end if self.last is None else max(self.last, window.end)

    def add(self, unit: str, window: SketchWindow, feature: str, plain: dict[str, Any]) -> None:
        """Take in one of its sketches.

        Raises:
            InvalidInputError: it can't be merged; nothing of it was taken in.
            DocumentError: it is none.
        """
        sketch = read_sketch(plain)
        self._gathering(self.units, unit).add(feature, sketch)
        number = int(window.start.timestamp() // self.stretch_s)
        self._gathering(self.stretches, number).add(feature, sketch)
        while len(self.stretches) > MAX_STRETCHES:
            self._lengthen()

    def own(self, devices: Iterable[str], feature: str | None = None) -> Verdict:
        """The worst that these say themselves, of a feature or of all."""
        heard = (self.heard[device] for device in devices)
        if feature is None:
            return worst(one.verdict for one in heard)
        return worst(one.own.get(feature, "unknown") for one in heard)

    def _gathering(self, among: dict[Any, Gathering], key: object) -> Gathering:
        return among.setdefault(key, Gathering(self.reference))

    def _lengthen(self) -> None:
        halves, self.stretches = self.stretches, {}
        self.stretch_s *= 2
        for number, gathering in halves.items():
            self._gathering(self.stretches, number // 2).absorb(gathering)


class Windows:
    """All windows of a model, by version.

    Args:
        registry: where the references are.
        versions: of the model that are looked at.
        places: devices by name.
        by: the finest level that sketches are kept for.

    Attributes:
        wholes: by bundle.
        heard: devices that sent windows of these versions, whether there is a reference or not.
        unreferenced: versions and bundles that have nothing to be held against, with the reason.
        set_aside: sketches that couldn't be used, the first of them.
        set_aside_count: how many there were.
    """

    def __init__(
        self,
        registry: Registry,
        versions: Iterable[ModelVersion],
        places: Mapping[str, Place],
        by: Level,
    ) -> None:
        self._registry, self._places, self._by = registry, places, by
        self._versions = {version.digest: version for version in versions}
        self.wholes: dict[str, Whole] = {}
        self.heard: set[str] = set()
        self.unreferenced: dict[str, str] = {}
        self.set_aside: list[SetAside] = []
        self.set_aside_count = 0

    def take(self, event: Event) -> None:
        """Take in a window, whatever its event holds."""
        device = event.device
        try:
            window = event.payload()
        except InvalidInputError as error:
            self._leave(device, event.id, "", error.message)
            return
        if not isinstance(window, SketchWindow):
            self._leave(device, event.id, "", "it is no window of sketches")
            return
        if not _EARLIEST <= window.start < window.end <= _LATEST:
            self._leave(device, event.id, "", "its span of time makes no sense")
            return
        if window.bundle in self._versions:
            self.heard.add(device)
        whole = self._whole(window)
        if whole is None:
            return
        whole.count(device, window)
        unit = self.unit_of(device, self._by)
        for feature, plain in window.features.items():
            if feature not in whole.reference:
                continue
            try:
                whole.add(unit, window, feature, plain)
            except (InvalidInputError, TypeError) as error:
                self._leave(device, event.id, feature, str(error))

    def unit_of(self, device: str, level: Level) -> str:
        """Name of the unit of that level that a device belongs to."""
        if level == "fleet":
            return FLEET
        if level == "device":
            return device
        return self._places[device].group if device in self._places else NOWHERE

    def _whole(self, window: SketchWindow) -> Whole | None:
        if window.bundle in self.wholes:
            return self.wholes[window.bundle]
        version = self._versions.get(window.bundle)
        if version is None:
            named = f"bundle {window.bundle[:19] or 'without a name'}"
            self._unreferenced(named, "it is no version that was asked for")
            return None
        if version.reference in self.unreferenced:
            return None
        try:
            reference = reference_of(self._registry, version.digest)
        except (InvalidInputError, IntegrityError, NotFoundError) as error:
            self._unreferenced(version.reference, error.message)
            return None
        if not reference:
            why = "its bundle has no reference sketches: optimize it with calibration data"
            self._unreferenced(version.reference, why)
            return None
        return self.wholes.setdefault(window.bundle, Whole(version.version, reference))

    def _unreferenced(self, what: str, why: str) -> None:
        if len(self.unreferenced) < MAX_TOLD:
            self.unreferenced.setdefault(what, why)

    def _leave(self, device: str, event: str, feature: str, why: str) -> None:
        self.set_aside_count += 1
        if len(self.set_aside) < MAX_TOLD:
            self.set_aside.append(
                SetAside(device=device, event=event, feature=feature[:200], why=why[:500])
            )
