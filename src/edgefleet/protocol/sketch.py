"""Sketches: a few kilobytes that stand for a distribution, and merge over devices and weeks.

Numbers go into a KLL sketch (Apache DataSketches, k = 400: with 99 % confidence a rank is off by at
most 0.68 % and the mass of an interval by 0.86 %; at most 5 kB up to ten million numbers), classes
into exact counts. Device and SDK share this one implementation. `datasketches` and numpy are
imported when a sketch is made or compared, never with this module.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edgefleet.errors import DocumentError, InvalidInputError, MissingExtraError
from edgefleet.protocol.documents import Document, decode
from edgefleet.protocol.kll import check_kll

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

K = 400  # KLL's accuracy parameter
MAX_CLASSES = 4096
_FLOOR = 1e-4  # share given to an empty bin, so that PSI stays finite


class NumberSketch(Document, frozen=True, kw_only=True):
    """Distribution of a numeric feature. Two that saw the same need not have the same bytes.

    Attributes:
        count: numbers seen, infinite ones included, missing ones left out.
        missing: NaN values seen.
        kll: serialized KLL sketch of floats (DataSketches binary format), base64 on the wire.
    """

    count: Annotated[int, msgspec.Meta(ge=0)]
    missing: Annotated[int, msgspec.Meta(ge=0)]
    kll: bytes


class ClassSketch(Document, frozen=True, kw_only=True):
    """Exact counts of classes, by class index as text."""

    counts: Annotated[
        dict[str, Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(max_length=MAX_CLASSES)
    ]


def read_sketch(plain: dict[str, Any]) -> NumberSketch | ClassSketch:
    """A sketch as it lies, decoded to plain data, in a `SketchWindow` or in a bundle's `Details`.

    Raises:
        DocumentError: it is neither kind of sketch; see `documents.decode` for the rest.
    """
    data = msgspec.json.encode(plain)
    if "kll" in plain:
        return decode(NumberSketch, data)
    if "counts" in plain:
        return decode(ClassSketch, data)
    msg = f"a sketch has kll or counts, this one has {', '.join(sorted(plain)) or 'nothing'}"
    raise DocumentError(msg[:300])


class NumberSketcher:
    """A sketch of numbers that grows.

    Args:
        begun: goes on with this one.

    Attributes:
        count: as of `NumberSketch`.
        missing: likewise.

    Raises:
        InvalidInputError: the given one is damaged.
        MissingExtraError: the datasketches library isn't installed.
    """

    def __init__(self, begun: NumberSketch | None = None) -> None:
        self._numpy, datasketches = _libraries()
        self._kll = datasketches.kll_floats_sketch(K) if begun is None else _kll(begun)
        self.count = 0 if begun is None else begun.count
        self.missing = 0 if begun is None else begun.missing

    def update(self, values: NDArray[Any] | Sequence[float]) -> None:
        """Add an array of any shape, as float32 (beyond its range: infinite); NaN is missing."""
        with self._numpy.errstate(over="ignore"):
            flat = self._numpy.asarray(values, dtype=self._numpy.float32).ravel()
        present = flat[~self._numpy.isnan(flat)]
        if present.size:
            self._kll.update(present)
        self.count += int(present.size)
        self.missing += int(flat.size - present.size)

    def sketch(self) -> NumberSketch:
        """All that was seen so far."""
        return NumberSketch(count=self.count, missing=self.missing, kll=self._kll.serialize())


def sketch_numbers(values: NDArray[Any] | Sequence[float]) -> NumberSketch:
    """Sketch an array of any shape, as float32 (beyond its range: infinite); NaN is missing."""
    sketcher = NumberSketcher()
    sketcher.update(values)
    return sketcher.sketch()


def sketch_classes(classes: Iterable[int]) -> ClassSketch:
    """Count classes.

    Raises:
        InvalidInputError: more than `MAX_CLASSES` different ones.
    """
    counts: dict[str, int] = {}
    for index in classes:
        key = str(int(index))
        counts[key] = counts.get(key, 0) + 1
    return _class_sketch(counts)


def merge_numbers(sketches: Iterable[NumberSketch]) -> NumberSketch:
    """One sketch of everything that the given ones saw.

    Raises:
        InvalidInputError: one of them is damaged.
    """
    merged = NumberMerger()
    for sketch in sketches:
        merged.add(sketch)
    return merged.sketch()


class NumberMerger:
    """One sketch of everything that others saw, for more of them than memory holds.

    Raises:
        MissingExtraError: the datasketches library isn't installed.
    """

    def __init__(self) -> None:
        _, datasketches = _libraries()
        self._kll = datasketches.kll_floats_sketch(K)
        self._count, self._missing = 0, 0

    def add(self, sketch: NumberSketch) -> None:
        """Take in what a sketch saw.

        Raises:
            InvalidInputError: it is damaged; nothing of it was taken in.
        """
        self._kll.merge(_kll(sketch))
        self._count += sketch.count
        self._missing += sketch.missing

    def absorb(self, other: NumberMerger) -> None:
        """Take in what another one took in."""
        self._kll.merge(other._kll)
        self._count += other._count
        self._missing += other._missing

    def sketch(self) -> NumberSketch:
        """All of it so far."""
        return NumberSketch(count=self._count, missing=self._missing, kll=self._kll.serialize())


def merge_classes(sketches: Iterable[ClassSketch]) -> ClassSketch:
    """Sum of the counts.

    Raises:
        InvalidInputError: more than `MAX_CLASSES` different classes together.
    """
    counts: dict[str, int] = {}
    for sketch in sketches:
        for key, count in sketch.counts.items():
            counts[key] = counts.get(key, 0) + count
    return _class_sketch(counts)


def _class_sketch(counts: dict[str, int]) -> ClassSketch:
    if len(counts) > MAX_CLASSES:
        msg = f"{len(counts)} classes are too many for exact counts, {MAX_CLASSES} are allowed"
        raise InvalidInputError(msg, cure="sketch the scores instead")
    return ClassSketch(counts=counts)


def quantiles(sketch: NumberSketch, ranks: Sequence[float]) -> list[float]:
    """Values at the given ranks (0 to 1). Empty sketches give NaN."""
    if not sketch.count:
        return [math.nan] * len(ranks)
    return [float(value) for value in _kll(sketch).get_quantiles(list(ranks))]


def split_points(reference: NumberSketch, bins: int = 10) -> list[float]:
    """Edges between bins of equal reference mass, ascending, fewer where a value repeats.

    Where the reference's largest value fills the last bin, what lies above gets one of its own.
    """
    if not reference.count:
        return []
    edges = sorted(set(quantiles(reference, [i / bins for i in range(1, bins)])))
    if edges and edges[-1] == extremes(reference)[1] < math.inf:
        edges.append(_next_float32(edges[-1]))
    return edges


def bins_of(sketch: NumberSketch, edges: list[float]) -> list[float]:
    """Shares of what was seen between the edges; one more than there are edges."""
    return [float(mass) for mass in _kll(sketch).get_pmf(edges)]


def cumulative(sketch: NumberSketch, points: list[float], *, inclusive: bool = True) -> list[float]:
    """Share of what was seen that is at most each point; below each, where not ``inclusive``."""
    kll = _kll(sketch)
    return [float(kll.get_rank(point, inclusive=inclusive)) for point in points]


def extremes(sketch: NumberSketch) -> tuple[float, float]:
    """The smallest and the largest number seen, exactly."""
    kll = _kll(sketch)
    return float(kll.get_min_value()), float(kll.get_max_value())


def psi_numbers(reference: NumberSketch, seen: NumberSketch, *, bins: int = 10) -> float:
    """Population stability index over bins of equal reference mass.

    Sum of ``(q - p) * ln(q / p)``; customary reading: below 0.1 stable, above 0.25 moved. An empty
    bin counts as a share of 0.0001. Bins are those of `split_points`.

    Raises:
        InvalidInputError: a sketch is empty or damaged.
    """
    if not reference.count or not seen.count:
        raise _nothing_to_compare()
    edges = split_points(reference, bins)
    return psi(bins_of(reference, edges), bins_of(seen, edges))


def mass_by_class(sketch: ClassSketch, keys: Sequence[str]) -> list[float]:
    """Share of each class.

    Raises:
        InvalidInputError: no class was seen.
    """
    total = sum(sketch.counts.values())
    if not total:
        raise _nothing_to_compare()
    return [sketch.counts.get(key, 0) / total for key in keys]


def psi_classes(reference: ClassSketch, seen: ClassSketch) -> float:
    """Population stability index over classes; see `psi_numbers` for its reading and errors."""
    keys = sorted(reference.counts.keys() | seen.counts.keys())
    return psi(mass_by_class(reference, keys), mass_by_class(seen, keys))


def psi(p: Sequence[float], q: Sequence[float]) -> float:
    """Population stability index of two lists of shares."""
    return sum(
        (max(b, _FLOOR) - max(a, _FLOOR)) * math.log(max(b, _FLOOR) / max(a, _FLOOR))
        for a, b in zip(p, q, strict=True)
    )


def _next_float32(value: float) -> float:
    numpy, _ = _libraries()
    return float(numpy.nextafter(numpy.float32(value), numpy.float32(math.inf)))


def _nothing_to_compare() -> InvalidInputError:
    msg = "an empty sketch has no distribution to compare"
    return InvalidInputError(msg, cure="wait for a window in which numbers were seen")


def _kll(sketch: NumberSketch) -> Any:  # noqa: ANN401 - datasketches ships no types
    _, datasketches = _libraries()
    if _numbers_in(sketch.kll) != sketch.count:
        msg = f"the sketch does not hold the {sketch.count} numbers that it says"
        raise InvalidInputError(msg, cure="leave this sketch out; its writer is broken")
    return datasketches.kll_floats_sketch.deserialize(sketch.kll)


_numbers_in = lru_cache(maxsize=8)(check_kll)  # comparing two looks at each a dozen times


def _libraries() -> tuple[Any, Any]:
    try:
        import datasketches  # noqa: PLC0415 - heavy, and not needed to carry sketches
        import numpy  # noqa: ICN001, PLC0415
    except ImportError as error:
        msg = "sketches need the datasketches library"
        raise MissingExtraError(
            msg, cure="install it with: pip install 'edgefleet[analysis]'"
        ) from error
    return numpy, datasketches
