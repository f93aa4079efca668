"""Tensors as raw bytes and as JSON: what goes in comes out, and nothing bad comes in."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgefleet.errors import InvalidInputError
from edgefleet.protocol import tensor_json, tensors

NUMBERS = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "FP32", "FP64",
]  # fmt: skip
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def arrays(datatype: str, *, finite: bool = False) -> st.SearchStrategy[Any]:
    if datatype == "BYTES":
        return SHAPES.flatmap(_byte_arrays)
    elements: dict[str, Any] = {"allow_nan": False, "allow_infinity": False} if finite else {}
    return hnp.arrays(
        tensors.dtype_of(datatype), SHAPES, elements=elements if datatype[0] == "F" else None
    )


def _byte_arrays(shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
    count = int(np.prod(shape))
    return st.lists(st.text().map(str.encode), min_size=count, max_size=count).map(
        lambda values: _object_array(values).reshape(shape)
    )


def _object_array(values: list[bytes]) -> Any:
    array = np.empty(len(values), object)
    array[:] = values
    return array


@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
@given(data=st.data())
def test_raw_bytes_round_trip(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype))
    raw = bytes(tensors.to_bytes(array, name="x"))
    seen = tensors.from_bytes(raw, tensors.datatype_of(array.dtype), array.shape, name="x")
    assert seen.dtype == array.dtype
    np.testing.assert_array_equal(seen, array)


@pytest.mark.parametrize("datatype", [*NUMBERS, "BYTES"])
@given(data=st.data())
def test_json_round_trip_flat_and_nested(datatype: str, data: st.DataObject) -> None:
    array = data.draw(arrays(datatype, finite=True))
    flat = json.dumps(tensor_json.to_json(array, name="x")).encode()
    nested = json.dumps(
        [v.decode() for v in array.reshape(-1)] if datatype == "BYTES" else array.tolist()
    ).encode()
    for form in (flat, nested if array.ndim else flat):
        seen = tensor_json.from_json(form, datatype, array.shape, name="x")
        assert seen.dtype == array.dtype
        np.testing.assert_array_equal(seen, array)


def test_nested_strings_are_read() -> None:
    seen = tensor_json.from_json(b'[["a","b,"],["\\"","d"]]', "BYTES", (2, 2), name="x")
    assert seen.tolist() == [[b"a", b"b,"], [b'"', b"d"]]


@given(data=st.binary(max_size=200), datatype=st.text(max_size=8) | st.sampled_from(NUMBERS))
def test_arbitrary_bytes_are_refused_cleanly(data: bytes, datatype: str) -> None:
    for read in (tensors.from_bytes, tensor_json.from_json):
        with suppress(InvalidInputError):
            read(data, datatype, (2, 3), name="x")


@given(st.lists(st.integers(), max_size=40))
def test_arbitrary_shapes_are_refused_cleanly(shape: list[int]) -> None:
    for read, data in ((tensors.from_bytes, b""), (tensor_json.from_json, b"[]")):
        try:
            array = read(data, "FP32", shape, name="x")
        except InvalidInputError:
            continue
        assert array.size == 0


@pytest.mark.parametrize(
    "datatype,shape,data,said",
    [
        ("FP32", (2,), b"\0" * 7, "takes 8"),
        ("FP32", (-1,), b"", "negative"),
        ("FP32", (1,) * 33, b"\0" * 4, "dimensions"),
        ("FP32", (2**62, 2**62), b"\0" * 4, "over the limit"),
        ("FP32", (0, 2**40), b"", "over the limit"),
        ("FP128", (1,), b"", "no such datatype"),
        ("BF16", (1,), b"\0\0", "BF16"),
        ("BYTES", (2,), b"\1\0\0\0a", "too few"),
        ("BYTES", (1,), b"\xff\xff\xff\xffa", "beyond"),
        ("BYTES", (2,), b"\5\0\0\0abcd\1\0\0\0", "beyond"),
        ("BYTES", (1,), b"\1\0\0\0abc", "behind"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(
    datatype: str, shape: tuple[int, ...], data: bytes, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        tensors.from_bytes(data, datatype, shape, name="x")


@pytest.mark.parametrize(
    "datatype,shape,data,said",
    [
        ("FP32", (2,), b"[1]", "takes 2"),
        ("FP32", (1,), b"[1,2]", "more values"),
        ("BYTES", (1,), b'["a","b"]', "more values"),
        ("FP32", (2, 2), b"[[1,2],[3,4,5]]", "more values"),
        ("FP32", (2, 2), b"[[1,2,3],[4]]", "don't have the shape"),
        ("FP32", (2, 1), b"[[[1]],[2]]", "no list of FP32"),
        ("FP32", (1,), b'["1"]', "no list of FP32"),
        ("FP32", (1,), b"[true]", "no list of FP32"),
        ("FP32", (1,), b"[null]", "no list of FP32"),
        ("FP32", (1,), b"7", "no list of FP32"),
        ("FP32", (1,), b"[1e39]", "does not fit FP32"),
        ("FP16", (1,), b"[70000]", "does not fit FP16"),
        ("BOOL", (1,), b"[1]", "no list of BOOL"),
        ("BYTES", (1,), b"[1]", "no list of BYTES"),
        ("INT32", (1,), b"[1.5]", "no list of INT32"),
        ("INT8", (1,), b"[128]", "no list of INT8"),
        ("UINT8", (1,), b"[-1]", "no list of UINT8"),
        ("UINT64", (1,), b"[18446744073709551616]", "does not fit UINT64"),
        ("INT64", (1,), b"[" + b"9" * 5000 + b"]", "no list of INT64"),
        ("FP32", (2,), b"[" * 100_000, "no list of FP32"),
        ("FP32", (0,), b"[1]", "takes none"),
        ("FP32", (tensor_json.MAX_JSON_ELEMENTS + 1,), b"[1]", "allowed in JSON"),
    ],
)
def test_json_that_does_not_fit_is_refused(
    datatype: str, shape: tuple[int, ...], data: bytes, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        tensor_json.from_json(data, datatype, shape, name="x")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_json_can_not_carry_what_is_not_finite(value: float) -> None:
    with pytest.raises(InvalidInputError, match="binary tensor data"):
        tensor_json.to_json(np.array([value]), name="y")


def test_json_can_not_carry_bytes_that_are_not_text() -> None:
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        tensor_json.to_json(_object_array([b"\xff"]), name="y")


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "i4,f4"])
def test_a_dtype_without_a_datatype_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidInputError, match="can't be carried"):
        tensors.to_bytes(np.zeros(1, dtype), name="y")


@pytest.mark.parametrize("element", [1, None, "\ud800"])
def test_an_element_that_is_no_text_is_refused(element: object) -> None:
    with pytest.raises(InvalidInputError, match="BYTES tensor 'y' holds"):
        tensors.to_bytes(np.array([element], object), name="y")


def test_strings_of_numpy_travel_as_text() -> None:
    raw = tensors.to_bytes(np.array(["é", "b"]), name="y")
    assert tensors.from_bytes(raw, "BYTES", (2,), name="y").tolist() == ["é".encode(), b"b"]


def test_large_aligned_tensors_are_views_in_both_directions() -> None:
    array = np.arange(1 << 16, dtype=np.float32)
    raw = tensors.to_bytes(array, name="x")
    assert np.shares_memory(np.frombuffer(raw, np.uint8), array)
    assert np.shares_memory(tensors.from_bytes(raw, "FP32", array.shape, name="x"), array)


def test_unaligned_data_is_copied_so_that_engines_may_use_it() -> None:
    seen = tensors.from_bytes(memoryview(b"\0" * 9)[1:], "FP32", (2,), name="x")
    assert seen.flags.aligned


def test_big_endian_and_strided_arrays_travel_right() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4)[:, ::2]
    raw = tensors.to_bytes(array, name="x")
    seen = tensors.from_bytes(raw, tensors.datatype_of(array.dtype), array.shape, name="x")
    np.testing.assert_array_equal(seen, array)


def test_bytes_that_are_no_bool_become_one() -> None:
    seen = tensors.from_bytes(b"\0\1\2", "BOOL", (3,), name="x")
    assert seen.view(np.uint8).tolist() == [0, 1, 1]


def test_importing_does_not_load_numpy() -> None:
    code = "import sys, edgefleet.protocol.inference; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
