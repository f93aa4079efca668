"""AMQP's values: bytes of the standard, a way there and back, nothing that breaks the reader."""

from __future__ import annotations

import contextlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet_azure.cloud.amqp_codec import (
    MAX_DEPTH,
    Array,
    Described,
    Int,
    MalformedError,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
)

LONG = st.integers(-(1 << 63), (1 << 63) - 1)
SIMPLE = (
    st.none()
    | st.booleans()
    | LONG
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.uuids()
    | st.text("abcxyz-:.", max_size=300).map(Symbol)
)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=5), inner, max_size=6)
        | st.builds(Described, st.integers(0, 300), inner)
    ),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "value, data",
    [
        # OASIS AMQP 1.0, part 1: 1.6.1, 1.6.2, 1.3.2 (an example) and 1.6.19 on
        (None, "40"),
        (True, "41"),
        (UByte(7), "5007"),
        (UShort(258), "600102"),
        (UInt(1), "7000000001"),
        (ULong(1), "800000000000000001"),
        (Int(-1), "71ffffffff"),
        (-2, "81fffffffffffffffe"),
        (Timestamp(1), "830000000000000001"),
        (b"\x01", "a00101"),
        ("\u00e9", "a102c3a9"),
        (Symbol("ab"), "a3026162"),
        ([], "c00100"),
        (Described(0x28, []), "005328c00100"),
    ],
)
def test_values_are_written_as_the_standard_says(value: object, data: str) -> None:
    assert encode(value).hex() == data


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    data = encode(value)
    assert decode(data) == (value, len(data))


@given(st.lists(st.text(max_size=300), max_size=5))
def test_an_array_is_read_back_as_a_list(texts: list[str]) -> None:
    data = encode(Array(texts))
    assert decode(data) == (texts, len(data))


@pytest.mark.parametrize(
    "data, value",
    [
        ("43", 0),
        ("44", 0),
        ("45", []),
        ("5205", 5),
        ("5305", 5),
        ("54ff", -1),
        ("55fe", -2),
        ("5601", True),
        ("98" + "00" * 15 + "01", uuid.UUID(int=1)),
        ("b10000000161", "a"),
        ("e004025202" + "03", [2, 3]),
    ],
)
def test_shorter_and_longer_forms_are_read_too(data: str, value: object) -> None:
    assert decode(bytes.fromhex(data))[0] == value


@given(st.binary(max_size=60))
def test_anything_else_is_refused_and_nothing_more(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        decode(data)


@pytest.mark.parametrize("data", ["", "a105", "d0ffffffff00000001", "c00305", "c20100", "ff"])
def test_what_is_cut_short_or_unknown_is_refused(data: str) -> None:
    with pytest.raises(MalformedError):
        decode(bytes.fromhex(data))


def test_values_that_lie_too_deep_are_refused() -> None:
    value: object = []
    for _ in range(MAX_DEPTH + 1):
        value = [value]
    with pytest.raises(MalformedError, match="deep"):
        decode(encode(value))


def test_what_has_no_type_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        encode(object())
