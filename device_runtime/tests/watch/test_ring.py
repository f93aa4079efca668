"""The ring holds recent requests, bounded in number and in bytes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.watch.seeing import seen
from edgefleet_runtime.watch.ring import Ring
from edgefleet_runtime.watch.tap import ITEM_BYTES


def versions(ring: Ring, count: int, model: str | None) -> list[int]:
    return [int(one.version) for one in ring.last(count, model)]


def test_it_holds_nothing_unless_asked() -> None:
    ring = Ring()
    ring.add(seen({}))
    assert (ring.last(8, None), ring.used_bytes) == ([], 0)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3000)), max_size=40),
    st.dictionaries(st.sampled_from(["a", "b", None]), st.integers(0, 6)),
    st.integers(0, 12_000),
)
def test_it_keeps_the_last_of_each_model_within_its_bytes(
    asked: list[tuple[str, int]], depths: dict[str | None, int], most: int
) -> None:
    ring = Ring(most)
    ring.keep(depths)
    for number, (model, size) in enumerate(asked):
        ring.add(seen({"x": np.zeros(size, np.uint8)}, version=str(number), model=model))
        assert ring.used_bytes <= most
    for model in "ab":
        depth = max(depths.get(model, 0), depths.get(None, 0))
        mine = [n for n, (name, size) in enumerate(asked) if name == model]
        found = versions(ring, 64, model)
        assert len(found) <= depth
        assert found == [n for n in mine if n in found], "in order"
        fits = sum(size + ITEM_BYTES for _, size in asked) <= most
        if fits:
            assert found == (mine[-depth:] if depth else [])


def test_asked_for_less_it_gives_up_the_oldest() -> None:
    ring = Ring()
    ring.keep({"digits": 4})
    for number in range(6):
        ring.add(seen({}, version=str(number)))
    assert versions(ring, 2, "digits") == [4, 5]
    ring.keep({None: 1})
    assert versions(ring, 64, None) == [5]
    ring.keep({})
    assert (versions(ring, 64, None), ring.used_bytes) == ([], 0)
