"""One window of sketches of one model, open or closed, and how it outlives the process.

Rules kept here:

- Values gather in rows and go into the sketches some hundred at a time: one call a value would
  take more of the processor than the models themselves.
- What a window takes in memory is bounded by `MAX_MODEL_FEATURES`, whatever comes.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from edgefleet.protocol.sketch import (
    MAX_CLASSES,
    ClassSketch,
    NumberSketch,
    NumberSketcher,
    read_sketch,
)
from edgefleet_runtime.watch.checkpoint import SavedWindow
from edgefleet_runtime.watch.tap import MAX_FEATURES, NUMBERS, looked_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgefleet_runtime.watch.seen import Seen

    Sketch = NumberSketch | ClassSketch

MAX_MODEL_FEATURES = 256  # of numbers; what a model has beyond them isn't sketched
MAX_JUMP_S = 5.0  # by which clocks may part before the device's counts as set anew
_ROWS = 256  # that gather before they go into sketches
_VALUES = 1 << 14  # likewise
_AT_ONCE = 1024  # values that go into a sketch in one call, which lets no other thread run


class SketchingWindow:
    """Sketches of what one model saw and answered from ``start`` to before ``end``.

    Attributes:
        id: tells it from all others.
        start: seconds since 1970, by the device's clock.
        end: likewise.
        requests: how many were looked at.
    """

    def __init__(self, begun: SavedWindow, *, apart: float) -> None:
        """Begin a window, or go on with one.

        Args:
            begun: as it was when it was saved.
            apart: how far the device's clock is ahead of the monotonic one, in seconds.

        Raises:
            InvalidInputError: a sketch in it is damaged.
            DocumentError: likewise.
        """
        self.id = begun.id
        self.model, self.version = begun.model, begun.version
        self.bundle, self.variant = begun.bundle, begun.variant
        self.start, self.end = begun.start, begun.end
        self.requests = begun.requests
        self._numbers: dict[str, NumberSketcher] = {}
        self._classes: dict[str, dict[str, int]] = {}
        for name, plain in begun.sketches.items():
            sketch = read_sketch(plain)
            if isinstance(sketch, NumberSketch):
                self._numbers[name] = NumberSketcher(sketch)
            else:
                self._classes[name] = dict(sketch.counts)
        self._rows: dict[str, list[NDArray[Any]]] = {}
        self._apart = apart

    @classmethod
    def of(cls, seen: Seen, *, size_s: float) -> SketchingWindow:
        """The window that a request falls into, still empty."""
        start = seen.time // size_s * size_s
        begun = SavedWindow(
            id=uuid.uuid4().hex,
            model=seen.model,
            version=seen.version,
            bundle=seen.bundle,
            variant=seen.variant,
            start=start,
            end=start + size_s,
            requests=0,
            sketches={},
        )
        return cls(begun, apart=seen.time - seen.at)

    def saved(self) -> SavedWindow:
        """What of it must outlive the process."""
        return SavedWindow(
            id=self.id,
            model=self.model,
            version=self.version,
            bundle=self.bundle,
            variant=self.variant,
            start=self.start,
            end=self.end,
            requests=self.requests,
            sketches=self.sketches(),
        )

    def sketches(self) -> dict[str, Sketch]:
        """By feature, in order of their names."""
        for name in tuple(self._rows):
            self._flush(name)
        found: dict[str, Sketch] = {name: one.sketch() for name, one in self._numbers.items()}
        for name, counts in self._classes.items():
            found[name] = ClassSketch(counts=dict(counts))
        return dict(sorted(found.items()))

    def holds(self, *, time: float, at: float) -> bool:
        """Whether that moment lies in it, and the device's clock wasn't set anew meanwhile."""
        jumped = abs(time - at - self._apart) > MAX_JUMP_S
        return self.start <= time < self.end and not jumped

    def add(self, seen: Seen) -> None:
        """Take a request in."""
        self.requests += 1
        for name, array in seen.inputs.items():
            if array.dtype.kind in NUMBERS and array.size:
                self._gather(name, looked_at(array))
        for answer in seen.answers:
            if not answer.top:
                continue
            scores = [np.nan if score is None else score for score in answer.score]
            self._gather(f"{answer.name}:score", np.asarray(scores, np.float32)[None, :])
            self._count(f"{answer.name}:top", answer.top)

    def _gather(self, name: str, rows: NDArray[Any]) -> None:
        gathered = self._rows.setdefault(name, [])
        if gathered and gathered[0].shape[1] != rows.shape[1]:
            self._flush(name)  # an input of changing length
        gathered.append(rows)
        total = sum(map(len, gathered))
        if total >= _ROWS or total * rows.shape[1] >= _VALUES:
            self._flush(name)

    def _flush(self, name: str) -> None:
        rows = self._rows[name]
        if not rows:
            return
        values = np.concatenate(rows)
        rows.clear()
        whole = name.endswith(":score") or values.shape[1] > MAX_FEATURES
        if whole:
            self._update(name, values.reshape(-1))
        else:
            for index in range(values.shape[1]):
                self._update(f"{name}[{index}]", values[:, index])

    def _update(self, feature: str, values: NDArray[Any]) -> None:
        sketcher = self._numbers.get(feature)
        if sketcher is None:
            if len(self._numbers) >= MAX_MODEL_FEATURES:
                return
            sketcher = self._numbers[feature] = NumberSketcher()
        for start in range(0, len(values), _AT_ONCE):
            sketcher.update(values[start : start + _AT_ONCE])

    def _count(self, feature: str, classes: tuple[int, ...]) -> None:
        counts = self._classes.setdefault(feature, {})
        for index in classes:
            key = str(index)
            if key in counts or len(counts) < MAX_CLASSES:
                counts[key] = counts.get(key, 0) + 1
