"""Drift by sketches: how near to the exact figures, and what each verdict rests on."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.documents import encode, parse
from edgefleet.protocol.drift import RANK_ERROR, Drift, Limits, compare, worst
from edgefleet.protocol.sketch import (
    ClassSketch,
    NumberSketch,
    merge_numbers,
    sketch_classes,
    sketch_numbers,
)

N = 50_000
Array = np.ndarray[Any, Any]


def drawn(seed: int, shift: float = 0.0, scale: float = 1.0, count: int = N) -> Array:
    return np.random.default_rng(seed).normal(shift, scale, size=count)


def exact_ks(one: Array, other: Array) -> float:
    points = np.concatenate([one, other])
    ranks = (np.searchsorted(np.sort(values), points, side="right") for values in (one, other))
    first, second = ranks
    return float(np.abs(first / one.size - second / other.size).max())


def exact_js(reference: Array, seen: Array) -> float:
    edges = np.quantile(reference, [i / 10 for i in range(1, 10)])
    p, q = (
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=10) / values.size
        for values in (reference, seen)
    )
    middle = (p + q) / 2
    return math.sqrt(float(np.sum(p * np.log2(p / middle)) + np.sum(q * np.log2(q / middle))) / 2)


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.3, 1.0])
def test_distances_lie_within_the_stated_bound_of_the_exact_ones(shift: float) -> None:
    reference, seen = drawn(1), drawn(2, shift)
    found = compare(sketch_numbers(reference), sketch_numbers(seen))
    # twice the bound on each rank: it holds at 99 % confidence, and draws can't be seeded
    assert found.ks == pytest.approx(exact_ks(reference, seen), abs=4 * RANK_ERROR)
    assert found.js == pytest.approx(exact_js(reference, seen), abs=0.02)


def test_the_same_distribution_is_stable_and_a_moved_one_is_not() -> None:
    reference = sketch_numbers(drawn(1))
    assert compare(reference, sketch_numbers(drawn(2))).verdict == "stable"
    assert compare(reference, sketch_numbers(drawn(3, 0.35))).verdict == "watch"
    moved = compare(reference, sketch_numbers(drawn(4, 1.0)))
    assert moved.verdict == "moved"
    assert "PSI" in moved.why


def test_a_verdict_on_merged_devices_is_that_on_all_their_data() -> None:
    reference = sketch_numbers(drawn(1))
    for shift, expected in ((0.0, "stable"), (1.0, "moved")):
        parts = [drawn(seed, shift, count=1_000) for seed in range(10, 40)]
        merged = compare(reference, merge_numbers(sketch_numbers(part) for part in parts))
        whole = compare(reference, sketch_numbers(np.concatenate(parts)))
        assert merged.verdict == whole.verdict == expected
        assert merged.ks == pytest.approx(whole.ks, abs=4 * RANK_ERROR)


def test_few_values_that_differ_by_chance_are_not_called_moved() -> None:
    reference = sketch_numbers(drawn(1))
    for seed in range(20):
        found = compare(reference, sketch_numbers(drawn(100 + seed, count=100)))
        assert found.ks is not None
        assert found.ks - found.ks_noise < Limits().ks_moved


def test_too_few_values_say_nothing() -> None:
    found = compare(sketch_numbers(drawn(1)), sketch_numbers(drawn(2, 9.0, count=99)))
    assert (found.verdict, found.psi) == ("unknown", None)
    assert "99 values seen, 100 needed" in found.why


def test_values_that_stay_away_are_drift_even_where_none_is_left_to_compare() -> None:
    reference = sketch_numbers(drawn(1))
    holes = drawn(2)
    holes[: N // 10] = np.nan
    some = compare(reference, sketch_numbers(holes))
    assert some.verdict == "moved"
    assert some.missing == pytest.approx(0.1)
    nothing = compare(reference, sketch_numbers(np.full(500, np.nan)))
    assert (nothing.verdict, nothing.why) == ("moved", "100.0% more are missing")


def test_what_lies_outside_all_that_was_seen_is_told() -> None:
    reference = sketch_numbers(np.linspace(0.0, 1.0, N))
    seen = np.linspace(0.0, 1.0, N)
    seen[: N // 5] = -4.0
    found = compare(reference, sketch_numbers(seen))
    assert found.outside == pytest.approx(0.2, abs=2 * RANK_ERROR)
    assert found.verdict == "moved"
    assert compare(reference, reference).outside == pytest.approx(0.0, abs=2 * RANK_ERROR)


def test_a_constant_that_stays_constant_is_stable() -> None:
    constant = sketch_numbers(np.full(1_000, 7.0))
    found = compare(constant, constant)
    assert (found.verdict, found.psi, found.ks, found.js) == ("stable", 0.0, 0.0, 0.0)
    assert compare(constant, sketch_numbers(np.full(1_000, 8.0))).verdict == "moved"


def test_classes_are_compared_by_their_shares() -> None:
    reference = sketch_classes([0, 1] * 5_000)
    assert compare(reference, sketch_classes([1, 0] * 400)).verdict == "stable"
    moved = compare(reference, sketch_classes([1] * 800))
    assert moved.verdict == "moved"
    assert moved.ks == pytest.approx(0.5)
    assert moved.js == pytest.approx(0.558, abs=1e-3)
    unknown = compare(reference, sketch_classes([0, 1, 7] * 300))
    assert unknown.outside == pytest.approx(1 / 3)
    assert "outside" in unknown.why


def test_the_worst_feature_decides_for_several() -> None:
    def of(verdict: str) -> Drift:
        return Drift(verdict=verdict, why="", count=1)  # type: ignore[arg-type]

    assert worst([of("stable"), of("moved"), of("unknown")]) == "moved"
    assert worst([of("unknown"), of("stable")]) == "stable"
    assert worst([]) == "unknown"


def test_a_drift_is_a_document() -> None:
    found = compare(sketch_numbers(drawn(1)), sketch_numbers(drawn(2)))
    assert parse(Drift, encode(found), "drift") == found


@pytest.mark.parametrize(
    "reference, seen",
    [
        (sketch_numbers([1.0]), sketch_classes([1])),
        (sketch_numbers([]), sketch_numbers([1.0] * 200)),
        (ClassSketch(counts={}), sketch_classes([1] * 200)),
    ],
    ids=["of two kinds", "an empty reference", "no class in the reference"],
)
def test_what_cannot_be_compared_is_refused(
    reference: NumberSketch | ClassSketch, seen: NumberSketch | ClassSketch
) -> None:
    with pytest.raises(InvalidInputError):
        compare(reference, seen)
