"""Sketches of many devices and weeks, merged as they come.

What comes from a device may be damaged or forged: a sketch that can't be merged is refused, and
spoils nothing of what others saw. Memory goes by features, some 5 kB each, not by sketches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.sketch import ClassSketch, NumberMerger, NumberSketch, merge_classes

if TYPE_CHECKING:
    from collections.abc import Mapping

    Sketch = NumberSketch | ClassSketch

MAX_COUNT = 1 << 40  # values that one window can have seen; what says more is forged


class Gathering:
    """Sketches by feature that grow.

    Args:
        reference: decides which features there are, and which are of numbers.
    """

    def __init__(self, reference: Mapping[str, Sketch]) -> None:
        self._reference = reference
        self._numbers: dict[str, NumberMerger] = {}
        self._classes: dict[str, ClassSketch] = {}

    def add(self, feature: str, sketch: Sketch) -> None:
        """Take in what a sketch saw of a feature of the reference.

        Raises:
            InvalidInputError: it is damaged, forged or of another kind than the reference; nothing
                of it was taken in.
        """
        if type(sketch) is not type(self._reference[feature]):
            msg = "of this and the reference, one is of numbers and the other of classes"
            raise InvalidInputError(msg, cure="leave it out")
        if count_of(sketch) > MAX_COUNT:
            raise InvalidInputError(f"it says that it saw {count_of(sketch)} values")
        if isinstance(sketch, NumberSketch):
            self._numbers.setdefault(feature, NumberMerger()).add(sketch)
        else:
            self._count(feature, sketch)

    def absorb(self, other: Gathering) -> None:
        """Take in all that another one took in, of the same reference.

        Raises:
            InvalidInputError: together they have too many classes to count.
        """
        for feature, merger in other._numbers.items():
            self._numbers.setdefault(feature, NumberMerger()).absorb(merger)
        for feature, sketch in other._classes.items():
            self._count(feature, sketch)

    def sketch(self, feature: str) -> Sketch:
        """All that was taken in of a feature of the reference."""
        if isinstance(self._reference[feature], NumberSketch):
            return self._numbers.get(feature, NumberMerger()).sketch()
        return self._classes.get(feature, ClassSketch(counts={}))

    def _count(self, feature: str, sketch: ClassSketch) -> None:
        before = self._classes.get(feature)
        self._classes[feature] = sketch if before is None else merge_classes([before, sketch])


def count_of(sketch: Sketch) -> int:
    """How many values a sketch saw, missing ones left out."""
    return sketch.count if isinstance(sketch, NumberSketch) else sum(sketch.counts.values())
