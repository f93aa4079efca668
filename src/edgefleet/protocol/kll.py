"""Check of a serialized KLL sketch before the library sees it.

`kll_floats_sketch.deserialize` of datasketches 5.2 follows the level offsets that it reads without
holding them against the buffer: a few flipped bytes write outside it and kill the process, or
worse. Sketches come from devices, so nothing reaches the library that `check_kll` has not passed.

The layout is Apache DataSketches' KLL format, serial versions 1 and 2, little-endian
(datasketches-cpp ``kll_sketch.hpp``; capacities as in ``kll_helper_impl.hpp``)::

    0 preamble ints   1 serial version   2 family (15)   3 flags   4 k (u16)   6 m (8)   7 unused
    8 n (u64)   16 min_k (u16)   18 levels   19 unused   20 offset of each level (u32)
    then the smallest and the largest item, then the items, level by level (f32)
"""

from __future__ import annotations

import math
import struct
from itertools import pairwise

from edgefleet.errors import InvalidInputError

FAMILY = 15
M = 8  # smallest width of a level, fixed by the library
MIN_K, MAX_K = 8, 65_535
MAX_LEVELS = 61
_EMPTY, _SORTED, _SINGLE = 1, 2, 4
_HEAD = struct.Struct("<BBBBHB")
_REST = struct.Struct("<QHB")
_HEAD_BYTES, _REST_BYTES = 8, 20  # with the unused bytes


def check_kll(data: bytes) -> int:
    """How many numbers a sketch has seen, once its bytes are known to be sound.

    Raises:
        InvalidInputError: they are no sketch that the library may be given; the message says why.
    """
    try:
        return _checked(data)
    except struct.error as error:
        raise _bad("it is cut short") from error


def _checked(data: bytes) -> int:
    ints, serial, family, flags, k, m = _HEAD.unpack_from(data)
    if (family, m) != (FAMILY, M) or not MIN_K <= k <= MAX_K:
        raise _bad("its family or parameters are others")
    if flags & _EMPTY:
        _expect(data, (ints, serial) == (2, 1), _HEAD_BYTES)
        return 0
    if flags & _SINGLE:
        _expect(data, (ints, serial) == (2, 2), _HEAD_BYTES + 4)
        _numbers(struct.unpack_from("<f", data, _HEAD_BYTES))
        return 1
    n, min_k, levels = _REST.unpack_from(data, _HEAD_BYTES)
    if (ints, serial) != (5, 1) or not MIN_K <= min_k <= k or not 1 <= levels <= MAX_LEVELS:
        raise _bad("its preamble is malformed")
    capacity = sum(_capacity(k, levels - 1 - height) for height in range(levels))
    offsets = (*struct.unpack_from(f"<{levels}I", data, _REST_BYTES), capacity)
    if any(low > high for low, high in pairwise(offsets)):
        raise _bad("its levels overlap")
    retained = capacity - offsets[0]
    start = _REST_BYTES + 4 * levels
    _expect(data, retained > 0, start + 4 * (2 + retained))
    low, high, *items = _numbers(struct.unpack_from(f"<{2 + retained}f", data, start))
    if not all(low <= item <= high for item in items):
        raise _bad("an item lies outside its range")
    _check_order(items, offsets, level_zero=bool(flags & _SORTED))
    if n != sum((b - a) << height for height, (a, b) in enumerate(pairwise(offsets))):
        raise _bad("its count is not that of its items")
    return int(n)


def _check_order(items: list[float], offsets: tuple[int, ...], *, level_zero: bool) -> None:
    levels = list(pairwise(offset - offsets[0] for offset in offsets))
    for begin, end in levels if level_zero else levels[1:]:
        if any(a > b for a, b in pairwise(items[begin:end])):
            raise _bad("a level is not sorted")


def _capacity(k: int, depth: int) -> int:
    """Items that a level holds which lies ``depth`` below the top: k * (2/3)^depth, rounded."""
    if depth > 30:  # in two steps, which keeps C++'s 64 bits from overflowing
        half = depth // 2
        return max(M, _shrunk(_shrunk(k, half), depth - half))
    return max(M, _shrunk(k, depth))


def _shrunk(k: int, depth: int) -> int:
    thirds: int = 3**depth
    return ((k << 1 << depth) // thirds + 1) >> 1


def _numbers(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(math.isnan(value) for value in values):
        raise _bad("it holds NaN")
    return values


def _expect(data: bytes, sound: bool, size: int) -> None:  # noqa: FBT001 - the caller's own test
    if not sound or len(data) != size:
        raise _bad(f"its preamble asks for {size} bytes, it has {len(data)}")


def _bad(why: str) -> InvalidInputError:
    cure = "leave this sketch out; its writer or the transport is broken"
    return InvalidInputError(f"not a KLL sketch: {why}", cure=cure)
