"""How much chance alone moves the features of windows that see what the reference saw."""

from __future__ import annotations

import numpy as np
import pytest

from edgefleet.optimization.reference import reference_sketches
from edgefleet.optimization.samples import Samples
from edgefleet.protocol.drift import compare, worst
from edgefleet.protocol.sketch import read_sketch, sketch_numbers

WINDOWS = 10


def verdicts(values: int) -> tuple[int, float]:
    """Windows of so many digits that have moved, and the largest PSI of any feature."""
    from sklearn.datasets import load_digits

    images = (load_digits(return_X_y=True)[0] / 16).astype(np.float32)
    random = np.random.default_rng(0)
    moved, largest = 0, 0.0
    for _ in range(WINDOWS):
        mixed = random.permutation(images)
        samples = Samples(arrays={"x": mixed[:900]}, count=900, step=None, bare=frozenset())
        references = reference_sketches(samples, seed=0)
        seen = mixed[900 : 900 + values]
        found = [
            compare(read_sketch(references[f"x[{i}]"]), sketch_numbers(seen[:, i]), features=64)
            for i in range(64)
        ]
        moved += worst(found) == "moved"
        largest = max(largest, *(drift.psi or 0.0 for drift in found))
    return moved, largest


@pytest.mark.parametrize("values, largest", [(100, 0.35), (200, 0.23), (400, 0.08)])
def test_chance_moves_nothing_however_few_the_values(values: int, largest: float) -> None:
    moved, found = verdicts(values)
    assert moved == 0
    assert found == pytest.approx(largest, abs=0.03)
