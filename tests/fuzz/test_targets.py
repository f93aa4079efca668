"""Any bytes, and bytes that were good until some of them changed, give a value or our own error."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import MAX_PLAIN_BYTES, TARGETS, run

MAX_MEMORY_BYTES = 24 << 20  # a segment may take 20 MB
STRAY = (b"", b"\0", b"\xff", b'"', b"{", b"[", b"-1", b"1e999", b"9" * 40, b"null", b"\r\n", b",")

each_target = pytest.mark.parametrize("name", list(TARGETS))


@st.composite
def spoiled(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A good input with some stretches cut, doubled or written over."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 12)))
        with_ = draw(
            st.sampled_from(STRAY) | st.binary(max_size=8) | st.just(bytes(data[start:end]) * 2)
        )
        data[start:end] = with_
    return bytes(data)


@each_target
def test_seeds_are_taken(name: str) -> None:
    target = TARGETS[name]
    assert all(run(target, seed) is None for seed in target.seeds)


@each_target
@settings(max_examples=300)
@given(data=st.data())
def test_spoiled_input_is_taken_or_refused(name: str, data: Any) -> None:
    target = TARGETS[name]
    run(target, data.draw(spoiled(target.seeds) | st.binary(max_size=200)))


@each_target
def test_every_cut_of_a_seed_is_taken_or_refused(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds:
        step = max(1, len(seed) // 200)
        for end in range(0, len(seed), step):
            run(target, seed[:end])


@each_target
def test_no_input_takes_memory_out_of_proportion(name: str) -> None:
    target = TARGETS[name]
    hostile = (
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"inputs":[' + b'{"name":"x","shape":[2147483647],"datatype":"FP64","data":[]}]}',
        b'"' + b"\\u0000" * 50_000 + b'"',
        b"9" * 100_000,
        *target.seeds,
    )
    tracemalloc.start()
    try:
        for data in hostile:
            run(target, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_MEMORY_BYTES + 4 * MAX_PLAIN_BYTES
