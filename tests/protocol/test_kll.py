"""The check that stands between bytes from a device and a library that trusts them."""

from __future__ import annotations

import copy
import random
import struct

import datasketches
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.kll import check_kll

KS = (8, 9, 20, 200, 400, 65_535)


def sketch(k: int, *counts: int, seed: int = 0) -> datasketches.kll_floats_sketch:
    """A sketch of ``counts[0]`` numbers, merged with one of each further count."""
    numbers = np.random.default_rng(seed)
    merged = datasketches.kll_floats_sketch(k)
    for count in counts:
        part = datasketches.kll_floats_sketch(k)
        if count:
            part.update(numbers.normal(size=count).round(1).astype(np.float32))
        merged.merge(part)
    return merged


SOUND = [bytes(sketch(400, n).serialize()) for n in (0, 1, 2, 400, 401, 30_000)]


@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("counts", [(0,), (1,), (2,), (7,), (400,), (1_000,), (300, 5, 70_000)])
def test_every_sketch_of_the_library_passes_with_its_count(k: int, counts: tuple[int, ...]) -> None:
    made = sketch(k, *counts)
    assert check_kll(made.serialize()) == made.n == sum(counts)


def test_sketch_that_was_asked_for_quantiles_passes() -> None:
    made = sketch(400, 5_000)
    made.get_quantile(0.5)
    assert check_kll(made.serialize()) == 5_000


def test_sketch_with_the_most_levels_passes() -> None:
    made = sketch(8, 100)
    for _ in range(45):
        made.merge(copy.copy(made))
    assert check_kll(made.serialize()) == 100 << 45


@pytest.mark.parametrize("data", SOUND, ids=len)
def test_sketch_cut_short_or_prolonged_is_refused(data: bytes) -> None:
    for size in {*range(min(len(data), 64)), len(data) - 1}:
        with pytest.raises(InvalidInputError, match="not a KLL sketch"):
            check_kll(data[:size])
    with pytest.raises(InvalidInputError, match="not a KLL sketch"):
        check_kll(data + b"\0")


def damaged(at: int, form: str, value: float) -> bytes:
    data = bytearray(SOUND[-1])
    struct.pack_into(form, data, at, value)
    return bytes(data)


LEVELS = SOUND[-1][18]
ITEMS = 20 + 4 * LEVELS + 8  # behind the smallest and the largest
TOP = len(SOUND[-1]) - 400  # well inside the top level


@pytest.mark.parametrize(
    "data, why",
    [
        (damaged(0, "<B", 2), "preamble"),
        (damaged(1, "<B", 2), "preamble"),
        (damaged(2, "<B", 7), "family"),
        (damaged(3, "<B", 4), "preamble asks for"),
        (damaged(4, "<H", 7), "parameters"),
        (damaged(4, "<H", 8), "preamble"),
        (damaged(6, "<B", 9), "parameters"),
        (damaged(8, "<Q", 1), "count"),
        (damaged(8, "<Q", 2**63), "count"),
        (damaged(16, "<H", 401), "preamble"),
        (damaged(18, "<B", 0), "preamble"),
        (damaged(18, "<B", 255), "preamble"),
        (damaged(20, "<I", 0), "preamble asks for"),
        (damaged(20, "<I", 2**32 - 1), "overlap"),
        (damaged(24, "<I", 2**31), "overlap"),
        (damaged(ITEMS - 4, "<f", -1e9), "outside"),
        (damaged(ITEMS, "<f", float("nan")), "NaN"),
        (damaged(TOP, "<f", -3.0), "sorted"),
    ],
)
def test_each_kind_of_damage_is_refused_for_what_it_is(data: bytes, why: str) -> None:
    with pytest.raises(InvalidInputError, match=f"not a KLL sketch: .*{why}"):
        check_kll(data)


@given(st.sampled_from(SOUND), st.integers(0, 2**32))
def test_library_survives_whatever_passes(data: bytes, seed: int) -> None:
    # Without the check, this kills the interpreter within a few dozen examples.
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(min(len(changed), 40))] = chance.randrange(256)
    try:
        count = check_kll(bytes(changed))
    except InvalidInputError:
        return
    made = datasketches.kll_floats_sketch.deserialize(bytes(changed))
    assert made.n == count
    if count:
        assert made.get_min_value() <= made.get_quantile(0.5) <= made.get_max_value()
