"""Sketches: how near they come to the exact figures, and that parts merge to the whole."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import datasketches
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import (
    DocumentError,
    InvalidInputError,
    MissingExtraError,
    UnknownFeatureError,
)
from edgefleet.protocol import sketch as s
from edgefleet.protocol.event import SketchWindow, new_event, read_event
from tests.contract import samples
from tests.protocol import strategies

N = 100_000
RANK_ERROR = 0.0068  # the docstring's figures; with 99 % confidence
MASS_ERROR = 0.0086
RANKS = [i / 20 for i in range(1, 20)]


def exact_psi(reference: np.ndarray[Any, Any], seen: np.ndarray[Any, Any]) -> float:
    edges = np.quantile(reference, [i / 10 for i in range(1, 10)])
    p, q = (
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=10) / values.size
        for values in (reference, seen)
    )
    return float(np.sum((q - p) * np.log(q / p)))


# ---------------------------------------------------------------------------------------- accuracy


def test_docstring_quotes_the_library_s_own_error_figures() -> None:
    of = datasketches.kll_floats_sketch.get_normalized_rank_error
    assert of(s.K, False) == pytest.approx(RANK_ERROR, abs=5e-5)
    assert of(s.K, True) == pytest.approx(MASS_ERROR, abs=5e-5)
    assert s.__doc__ is not None
    assert "0.68 %" in s.__doc__
    assert "0.86 %" in s.__doc__


@pytest.mark.parametrize("count", [100, 5_000, 10_000_000])
def test_sketch_has_the_size_that_the_docstring_says(count: int) -> None:
    made = s.sketch_numbers(np.random.default_rng(1).random(size=count, dtype=np.float32))
    assert len(made.kll) <= 5_000


@pytest.mark.parametrize("shape", ["normal", "exponential", "uniform", "standard_cauchy"])
def test_quantiles_lie_within_the_rank_error(shape: str) -> None:
    values = getattr(np.random.default_rng(2), shape)(size=N)
    ordered = np.sort(values.astype(np.float32))
    for rank, value in zip(RANKS, s.quantiles(s.sketch_numbers(values), RANKS), strict=True):
        seen = np.searchsorted(ordered, np.float32(value)) / N
        # twice the bound: 19 ranks at 99 % each, and the library's draws can't be seeded
        assert abs(seen - rank) < 2 * RANK_ERROR


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3, 1.0])
def test_psi_is_near_the_exact_one(shift: float) -> None:
    numbers = np.random.default_rng(3)
    reference, seen = numbers.normal(size=N), numbers.normal(shift, size=N)
    exact = exact_psi(reference, seen)
    sketched = s.psi_numbers(s.sketch_numbers(reference), s.sketch_numbers(seen))
    assert sketched == pytest.approx(exact, rel=0.15, abs=0.01)


def test_sketch_of_few_numbers_is_exact() -> None:
    made = s.sketch_numbers([5.0, 1.0, 3.0, 2.0, 4.0])
    assert s.quantiles(made, [0.0, 0.5, 1.0]) == [1.0, 3.0, 5.0]


# ------------------------------------------------------------------------------------------- merge


def test_sketches_of_many_devices_merge_to_the_sketch_of_all() -> None:
    numbers = np.random.default_rng(4)
    parts = [numbers.normal(i / 50, 1, size=2_000) for i in range(50)]
    merged = s.merge_numbers(s.sketch_numbers(part) for part in parts)
    whole = np.sort(np.concatenate(parts).astype(np.float32))
    assert (merged.count, merged.missing) == (whole.size, 0)
    for rank, value in zip(RANKS, s.quantiles(merged, RANKS), strict=True):
        seen = np.searchsorted(whole, np.float32(value)) / whole.size
        assert abs(seen - rank) < 2 * RANK_ERROR


few = st.lists(st.floats(width=32, allow_infinity=False), max_size=30)


@given(st.lists(few, max_size=5))
def test_merged_counts_are_those_of_the_whole(parts: list[list[float]]) -> None:
    merged = s.merge_numbers(s.sketch_numbers(part) for part in parts)
    whole = s.sketch_numbers([value for part in parts for value in part])
    assert (merged.count, merged.missing) == (whole.count, whole.missing)
    got, due = (s.quantiles(sketch, [0.0, 0.25, 0.5, 1.0]) for sketch in (merged, whole))
    assert np.array_equal(got, due, equal_nan=True)  # below k numbers nothing is thrown away


@given(st.lists(st.lists(st.integers(-5, 5)), max_size=5))
def test_merged_classes_are_those_of_the_whole(parts: list[list[int]]) -> None:
    merged = s.merge_classes(s.sketch_classes(part) for part in parts)
    assert merged.counts == s.sketch_classes([c for part in parts for c in part]).counts


# ----------------------------------------------------------------------------------- special values


def test_nan_is_missing_and_infinity_is_seen() -> None:
    made = s.sketch_numbers([math.nan, math.inf, -math.inf, 0.0, math.nan])
    assert (made.count, made.missing) == (3, 2)
    assert s.quantiles(made, [0.0, 0.5, 1.0]) == [-math.inf, 0.0, math.inf]
    assert s.psi_numbers(made, made) == 0.0


def test_number_beyond_float32_is_infinite() -> None:
    assert s.quantiles(s.sketch_numbers([1e300]), [0.5]) == [math.inf]


def test_array_of_any_shape_and_type_is_sketched() -> None:
    made = s.sketch_numbers(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)[:, ::2])
    assert made.count == 16


def test_empty_sketch_has_no_quantiles() -> None:
    assert all(map(math.isnan, s.quantiles(s.sketch_numbers([]), [0.5, 0.9])))


def test_empty_sketch_cannot_be_compared() -> None:
    empty, full = s.sketch_numbers([]), s.sketch_numbers([1.0])
    for pair in ((empty, full), (full, empty)):
        with pytest.raises(InvalidInputError, match="no distribution to compare"):
            s.psi_numbers(*pair)
    nothing, something = s.sketch_classes([]), s.sketch_classes([1])
    for classes in ((nothing, something), (something, nothing)):
        with pytest.raises(InvalidInputError, match="no distribution to compare"):
            s.psi_classes(*classes)


@pytest.mark.parametrize("seen", [[6.0], [4.0]])
def test_reference_of_one_value_notices_a_move_to_either_side(seen: list[float]) -> None:
    reference = s.sketch_numbers([5.0] * 1000)
    assert s.psi_numbers(reference, reference) == 0.0
    assert s.psi_numbers(reference, s.sketch_numbers(seen * 1000)) > 1


def test_move_above_a_value_that_most_of_the_reference_has_is_noticed() -> None:
    reference = s.sketch_numbers([0.0] * 50 + [1.0] * 950)
    assert s.psi_numbers(reference, s.sketch_numbers([0.0] * 50 + [2.0] * 950)) > 1


def test_psi_of_classes_is_the_textbook_s() -> None:
    reference, seen = (
        s.ClassSketch(counts={"0": 50, "1": 50}),
        s.ClassSketch(counts={"0": 1, "1": 3}),
    )
    assert s.psi_classes(reference, seen) == pytest.approx(
        (0.25 - 0.5) * math.log(0.5) + (0.75 - 0.5) * math.log(1.5)
    )


def test_psi_of_a_class_never_seen_before_is_finite_and_large() -> None:
    seen = s.psi_classes(s.ClassSketch(counts={"0": 1}), s.ClassSketch(counts={"1": 1}))
    assert 1 < seen < math.inf


# ------------------------------------------------------------------------------------- on the wire


@given(few)
def test_sketch_survives_an_event(values: list[float]) -> None:
    made = s.sketch_numbers(values)
    window = SketchWindow(model="m", start=samples.NOON, end=samples.LATER, features={"x": made})
    seen = read_event(msgspec.json.encode(new_event(window))).payload()
    assert isinstance(seen, SketchWindow)
    assert s.read_sketch(seen.features["x"]) == made


@given(strategies.class_sketches)
def test_class_sketch_survives_plain_data(sketch: s.ClassSketch) -> None:
    assert s.read_sketch(json.loads(msgspec.json.encode(sketch))) == sketch


def test_sketch_from_the_future_is_refused_by_the_feature_it_needs() -> None:
    with pytest.raises(UnknownFeatureError, match="other-bins"):
        s.read_sketch({"version": 2, "requires": ["other-bins"], "counts": "elsewhere"})


@pytest.mark.parametrize(
    "plain", [{}, {"version": 1, "requires": []}, {"version": 1, "requires": [], "histogram": [1]}]
)
def test_what_is_no_sketch_is_refused(plain: dict[str, Any]) -> None:
    with pytest.raises(DocumentError, match="a sketch has kll or counts"):
        s.read_sketch(plain)


def test_negative_count_is_refused() -> None:
    with pytest.raises(DocumentError):
        s.read_sketch({"version": 1, "requires": [], "counts": {"0": -1}})


def test_sketch_that_lies_about_its_count_is_refused() -> None:
    lying = msgspec.structs.replace(samples.NUMBERS, count=1_000_000)
    for use in (
        lambda: s.quantiles(lying, [0.5]),
        lambda: s.merge_numbers([samples.NUMBERS, lying]),
        lambda: s.psi_numbers(samples.NUMBERS, lying),
    ):
        with pytest.raises(InvalidInputError, match="does not hold the 1000000 numbers"):
            use()


def test_damaged_sketch_is_refused() -> None:
    damaged = msgspec.structs.replace(samples.NUMBERS, kll=samples.KLL[:-1])
    with pytest.raises(InvalidInputError, match="not a KLL sketch"):
        s.merge_numbers([damaged])


def test_too_many_classes_are_refused_with_a_cure() -> None:
    most = s.sketch_classes(range(s.MAX_CLASSES))
    with pytest.raises(InvalidInputError, match="sketch the scores instead"):
        s.sketch_classes(range(s.MAX_CLASSES + 1))
    with pytest.raises(InvalidInputError, match="sketch the scores instead"):
        s.merge_classes([most, s.ClassSketch(counts={"new": 1})])


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasketches", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgefleet\[analysis\]'"):
        s.sketch_numbers([1.0])
