"""Chance: how often verdicts on what hasn't moved are wrong, and what small windows still show."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from edgefleet.protocol.chance import pooled, psi_noise, share_bound, tempered
from edgefleet.protocol.drift import compare
from edgefleet.protocol.sketch import psi, sketch_classes, sketch_numbers

Array = np.ndarray[Any, Any]
POINTS = 128  # of a reference in a bundle
DRAWS = 20_000
CLAIMED = 0.01


def windows(values: int, points: int, seed: int) -> tuple[list[float], list[list[float]]]:
    """Shares of ten bins that hold a tenth of the reference each, in it and in many windows.

    What a bin really holds varies as the gaps between a sample's order statistics do: Dirichlet.
    """
    random = np.random.default_rng(seed)
    masses = random.dirichlet([points / 10] * 10, size=DRAWS)
    return [0.1] * 10, (random.multinomial(values, masses) / values).tolist()


@pytest.mark.parametrize("values", [100, 200, 1000])
@pytest.mark.parametrize("points", [POINTS, 50_000])
@pytest.mark.parametrize("features", [1, 64])
def test_bins_that_have_not_moved_pass_the_noise_rarely(
    values: int, points: int, features: int
) -> None:
    reference, seen = windows(values, points, seed=values + points)
    noise = psi_noise(10, points, values, features=features)
    passed = sum(tempered(reference, shares) > noise for shares in seen)
    assert passed / DRAWS * features <= CLAIMED


@pytest.mark.parametrize("values", [100, 200, 1000])
@pytest.mark.parametrize("had", [0, 1, 3])
def test_a_share_after_a_sample_passes_its_bound_as_rarely_as_is_said(
    values: int, had: int
) -> None:
    random = np.random.default_rng(values + had)
    masses = random.beta(had + 1, POINTS - had, size=200_000)
    shares = random.binomial(values, masses) / values
    assert float((shares > share_bound(had, POINTS, values)).mean()) <= 0.0015


def test_nothing_is_rare_to_a_sample_that_has_nothing_else() -> None:
    assert share_bound(5, 5, 1000) == 1.0
    assert share_bound(0, 5, 0) == 1.0


def test_bounds_shrink_with_the_samples_and_grow_with_the_features() -> None:
    sizes = [100, 200, 1000, 100_000]
    for one, other in pairwise(sizes):
        assert psi_noise(10, 500, one) > psi_noise(10, 500, other)
        assert share_bound(1, 500, one) > share_bound(1, 500, other) - 0.01
    assert psi_noise(10, 500, 500, features=64) > psi_noise(10, 500, 500)
    assert share_bound(1, 500, 500, features=64) > share_bound(1, 500, 500)
    assert psi_noise(1, 500, 500) == 0.0


def test_what_is_held_against_the_noise_is_psi_where_shares_differ_little() -> None:
    p, q = [0.2, 0.3, 0.5], [0.21, 0.28, 0.51]
    assert tempered(p, q) == pytest.approx(psi(p, q), rel=0.01)
    assert tempered([0.1, 0.9], [0.0, 1.0]) < psi([0.1, 0.9], [0.0, 1.0]) / 2


def test_bins_with_too_few_to_tell_anything_are_one() -> None:
    p, q = [0.94, 0.02, 0.01, 0.03], [0.90, 0.03, 0.02, 0.05]
    fewer, others = pooled(p, q, 128, 100)
    assert fewer == pytest.approx([0.94, 0.06])
    assert others == pytest.approx([0.90, 0.10])
    assert pooled(p, q, 5_000, 5_000) == (p, q)


@pytest.mark.parametrize("values, windows_of_64", [(100, 6), (200, 5), (1000, 4)])
def test_sketches_of_what_has_not_moved_are_stable(values: int, windows_of_64: int) -> None:
    random = np.random.default_rng(values)
    ranks = (np.arange(POINTS) + 0.5) / POINTS
    verdicts = set()
    for _ in range(windows_of_64):
        for feature in range(64):
            drawn = random.normal(size=900) if feature % 2 else random.poisson(2.0, size=900)
            seen = random.normal(size=values) if feature % 2 else random.poisson(2.0, size=values)
            reference = sketch_numbers(np.quantile(drawn, ranks, method="lower"))
            verdicts.add(compare(reference, sketch_numbers(seen), features=64).verdict)
    assert verdicts == {"stable"}


def test_classes_that_have_not_moved_are_stable() -> None:
    random = np.random.default_rng(0)
    shares = 1.0 / np.arange(1, 41)
    shares /= shares.sum()
    for _ in range(50):
        reference, seen = (sketch_classes(random.choice(40, n, p=shares)) for n in (500, 100))
        assert compare(reference, seen, features=64).verdict == "stable"


@pytest.mark.parametrize("features", [1, 64])
def test_half_a_deviation_is_seen_in_a_thousand_values(features: int) -> None:
    random = np.random.default_rng(1)
    reference = sketch_numbers(random.normal(size=50_000))
    for _ in range(20):
        seen = sketch_numbers(random.normal(0.5, size=1_000))
        assert compare(reference, seen, features=features).verdict in {"watch", "moved"}


def test_a_whole_deviation_is_seen_with_the_reference_of_a_bundle() -> None:
    random = np.random.default_rng(2)
    for _ in range(20):
        ranks = (np.arange(POINTS) + 0.5) / POINTS
        reference = sketch_numbers(np.quantile(random.normal(size=900), ranks))
        seen = sketch_numbers(random.normal(1.0, size=1_000))
        assert compare(reference, seen, features=64).verdict == "moved"


def test_values_missing_by_chance_are_not_drift_and_many_are() -> None:
    random = np.random.default_rng(3)

    def with_holes(count: int, share: float) -> Array:
        drawn = random.normal(size=count)
        drawn[random.random(count) < share] = np.nan
        return drawn

    reference = sketch_numbers(with_holes(500, 0.2))
    for _ in range(100):
        found = compare(reference, sketch_numbers(with_holes(150, 0.2)), features=64)
        assert found.verdict in {"stable", "unknown"}
    assert compare(reference, sketch_numbers(with_holes(500, 0.5))).verdict == "moved"


def test_a_distance_that_chance_explains_is_called_so() -> None:
    random = np.random.default_rng(4)
    found = [
        compare(sketch_numbers(random.normal(size=128)), sketch_numbers(random.normal(size=100)))
        for _ in range(20)
    ]
    explained = [drift for drift in found if (drift.psi or 0.0) > 0.1]
    assert explained
    assert all(drift.why.endswith("may be chance") for drift in explained)
