"""How close a candidate's outputs lie to those of the model as given, on the caller's samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidModelError
from edgefleet.optimization.sessions import open_session

if TYPE_CHECKING:
    from edgefleet.optimization.artifact import Artifact
    from edgefleet.optimization.samples import Samples

MAX_CALLS = 64  # of each model: more tell nothing new


@dataclass(frozen=True, slots=True)
class Closeness:
    """One output, held against the model as given.

    Attributes:
        output: its name.
        snr_db: signal to noise in dB: ten times the logarithm of the output's power over the
            difference's; infinite where all are equal.
        max_error: the largest difference.
    """

    output: str
    snr_db: float
    max_error: float


def compare(
    given: Artifact, candidate: Artifact, samples: Samples, *, seed: int
) -> tuple[Closeness, ...]:
    """Closeness of each numeric output, over up to `MAX_CALLS` calls with the caller's samples.

    Args:
        given: the model as given.
        candidate: what was made of it.
        samples: the caller's.
        seed: decides which samples.

    Raises:
        InvalidModelError: an engine can't load one, or an output has another shape.
        InvalidInputError: one fails on a sample.
    """
    import numpy as np

    starts = list(samples.starts())
    chosen = sorted(np.random.default_rng(seed).permutation(len(starts))[:MAX_CALLS].tolist())
    one, other = open_session(given), open_session(candidate)
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    worst: dict[str, float] = {}
    for index in chosen:
        feed = samples.smallest(starts[index])
        there = other.run(feed)
        for name, value in one.run(feed).items():
            if value.shape != there[name].shape:
                raise InvalidModelError(
                    f"its output {name!r} has shape {list(there[name].shape)}, "
                    f"the original's {list(value.shape)}",
                    cure="callers know one model: make it with outputs of the same shapes",
                )
            if value.dtype.kind != "f" or not value.size:
                continue
            due, seen = value.astype(np.float64), there[name].astype(np.float64)
            apart = np.abs(due - seen)
            signal[name] = signal.get(name, 0.0) + float(np.square(due).sum())
            noise[name] = noise.get(name, 0.0) + float(np.square(apart).sum())
            worst[name] = max(worst.get(name, 0.0), float(apart.max()))
    return tuple(
        Closeness(name, _decibel(signal[name], noise[name]), worst[name]) for name in worst
    )


def _decibel(signal: float, noise: float) -> float:
    if math.isnan(noise) or math.isinf(noise):
        return -math.inf
    if noise == 0:
        return math.inf
    return -math.inf if signal == 0 else 10 * math.log10(signal / noise)
