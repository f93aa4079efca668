"""Chance: what distances of small samples come to where nothing has moved.

Two samples of one distribution differ. A verdict on drift rests only on what lies beyond the
bounds of this module, each of which chance passes in a share `ALPHA` of windows at most by its
approximation, and in under 1 % of them by the tests. Who judges several features of a window at
once says how many: each then gets its part of that share (Bonferroni).

Sources: Yurdakul, *Statistical Properties of Population Stability Index* (2018): PSI is about
``(1/n + 1/m)`` times a chi-square of ``bins - 1`` degrees; Wilson and Hilferty (1931) for its
quantiles; Abramowitz and Stegun, 26.2.23, for the normal's; Wilks (1942) for how much of a sample
lies outside of another's range.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ALPHA = 0.001
FEWEST = 5.0  # values that a bin of its own is expected to have; Cochran's rule
_MOST = 10_000  # values that `share_bound` looks at; more would only lower it
_Shares = tuple[list[float], list[float]]


def psi_noise(bins: int, one: int, other: int, *, features: int = 1) -> float:
    """The PSI that samples of these sizes give where nothing has moved; passed by chance rarely.

    Args:
        bins: of these; 0.0 where there is one only.
        one: values in the first sample; of a bundle's reference, which is made of quantiles, their
            number, for it was made of as many values at least.
        other: values in the second.
        features: judged together.
    """
    degrees = bins - 1
    if degrees < 1:
        return 0.0
    part = 2 / (9 * degrees)
    quantile = degrees * (1 - part + _normal(ALPHA / features) * math.sqrt(part)) ** 3
    return quantile * (1 / one + 1 / other)


def tempered(p: Sequence[float], q: Sequence[float]) -> float:
    """PSI without what makes it wild in small samples: eight times the Jensen-Shannon divergence.

    Equal to PSI where the shares differ little, and bounded where a bin is empty: there PSI alone
    jumps by 0.7 for a tenth of the mass, which `psi_noise` knows nothing of.
    """
    total = 0.0
    for a, b in zip(p, q, strict=True):
        total += sum(x * math.log(2 * x / (a + b)) for x in (a, b) if x > 0)
    return 4 * total


def pooled(p: Sequence[float], q: Sequence[float], one: int, other: int) -> _Shares:
    """The same shares, with those bins as one in which too few are expected to tell anything."""
    fewer = min(one, other)
    kept: _Shares = ([], [])
    rest = [0.0, 0.0]
    for a, b in zip(p, q, strict=True):
        if (a * one + b * other) / (one + other) * fewer >= FEWEST:
            kept[0].append(a)
            kept[1].append(b)
        else:
            rest[0] += a
            rest[1] += b
    if any(rest):
        kept[0].append(rest[0])
        kept[1].append(rest[1])
    return kept


@lru_cache(maxsize=256)
def share_bound(had: int, one: int, other: int, *, features: int = 1) -> float:
    """The share of something rare in a sample that chance passes rarely, after another sample.

    Exact for what lies beyond the smallest and the largest value of the first (Wilks), with
    ``had=1``, and for one class that it lacks, with ``had=0``: a beta-binomial distribution.

    Args:
        had: how many of the first sample were so.
        one: values in the first.
        other: values in the second; 1.0 comes where nothing is rare.
        features: judged together.
    """
    seen = min(other, _MOST)
    if had >= one or not seen:
        return 1.0
    log = math.lgamma(one - had + seen) + math.lgamma(one + 1)
    log -= math.lgamma(one + 1 + seen) + math.lgamma(one - had)
    beyond, many = 1.0, 0
    while many < seen:
        beyond -= math.exp(log)
        if beyond <= ALPHA / features:
            break
        log += math.log((seen - many) * (many + had + 1) / (many + 1))
        log -= math.log(one + seen - had - 1 - many)
        many += 1
    return many / seen


def _normal(above: float) -> float:
    """The standard normal's quantile above which lies this share, to 0.00045."""
    t = math.sqrt(-2 * math.log(above))
    over = 2.515517 + t * (0.802853 + t * 0.010328)
    return t - over / (1 + t * (1.432788 + t * (0.189269 + t * 0.001308)))
