"""The data of the examples: scikit-learn's scanned digits, the same split on every machine.

1,797 images of 8 x 8 pixels, a stand-in for visual inspection on a line. One fifth is held out: no
example trains on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Images = NDArray[np.float32]
Labels = NDArray[np.int64]

HELD_OUT = 0.2
SEED = 7


def _split() -> tuple[Images, Images, Labels, Labels]:
    images, labels = load_digits(return_X_y=True)
    scaled = (images / 16.0).astype(np.float32)
    parts: tuple[Images, Images, Labels, Labels] = train_test_split(
        scaled, labels.astype(np.int64), test_size=HELD_OUT, random_state=SEED, stratify=labels
    )
    return parts


def training_data() -> tuple[Images, Labels]:
    """Images, ``float32[1437, 64]`` from 0 to 1, and the digit that each shows."""
    images, _, labels, _ = _split()
    return images, labels


def held_out() -> tuple[Images, Labels]:
    """Images that no model has seen, ``float32[360, 64]``, and their digits."""
    _, images, _, labels = _split()
    return images, labels


def calibration(count: int = 200) -> Images:
    """Training images from which quantization learns the ranges of values."""
    return training_data()[0][:count]


def accuracy(predict: Callable[[Images], Mapping[str, NDArray[Any]]]) -> float:
    """Share of the held-out images that a model tells right; `edgefleet.optimize` calls it."""
    images, labels = held_out()
    return float((predict(images)["label"] == labels).mean())
