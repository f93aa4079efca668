"""Files that devices wrote are believed no further than they reach."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgefleet.analysis.npy import read_npy
from edgefleet.errors import InvalidInputError


def written(array: Any, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def claiming(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


@given(
    arrays.arrays(
        dtype=st.sampled_from(["<f4", "<f8", "|u1", "<i8", "|b1", "<f2", "|S3"]),
        shape=arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.booleans(),
    st.sampled_from([(1, 0), (2, 0)]),
)
def test_arrays_read_back(array: Any, fortran: bool, version: tuple[int, int]) -> None:  # noqa: FBT001
    held = np.array(array, order="F" if fortran else "C")
    read = read_npy(written(held, version))
    assert (read.shape, read.dtype) == (array.shape, array.dtype)
    assert read.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04",
        b"\x93NUMPY\x09\x00",
        written(np.zeros(8))[:-1],
        claiming("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        claiming("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }"),
        claiming("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"),
        claiming("{'descr': '|S0', 'fortran_order': False, 'shape': (9,), }"),
        claiming("{'descr': 'what', 'fortran_order': False, 'shape': (1,), }"),
        claiming("{'shape': (1,)}"),
        claiming("__import__('os')"),
        claiming("("),
    ],
)
def test_what_is_no_array_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"no \.npy file"):
        read_npy(data)


@given(st.binary(max_size=200))
def test_any_header_is_an_array_or_refused(noise: bytes) -> None:
    try:
        read_npy(b"\x93NUMPY\x01\x00" + noise)
    except InvalidInputError:
        return
