"""Tensors as they travel: Open Inference Protocol v2's element types, and arrays as raw bytes.

Raw bytes are little-endian and in C order; an element of a BYTES tensor is a 4-byte little-endian
length and that many bytes (the "binary tensor data" extension). BYTES tensors are object arrays of
``bytes`` here; ``str`` is written too. `edgefleet.protocol.tensor_json` has the same in JSON.

Rules kept here:

- Nothing is allocated by what a shape claims: it is held against the data that is really there.
- Whatever is wrong with the data, the caller gets `InvalidInputError` and the tensor's name in it.
- numpy is imported when a tensor is touched, not before: most of what imports this never does.
"""

from __future__ import annotations

import functools
import math
import struct
from typing import TYPE_CHECKING, Any, cast, get_args

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.bundle import Datatype

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

MAX_RANK = 32  # numpy 1's limit
MAX_ELEMENTS = 1 << 31  # elements of one tensor

# numpy's names; no entry for BF16, which numpy lacks, nor for BYTES, which is an object there.
_WIRE_TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_COPIED_BELOW = 1 << 16  # bytes; a view of a large array is cheaper than a copy, of a small one not
_LENGTH = struct.Struct("<I")


@functools.cache
def dtype_of(datatype: str) -> np.dtype[Any]:
    """The numpy dtype that holds tensors of this datatype; object for BYTES.

    Raises:
        InvalidInputError: no such datatype, or numpy has no such type (BF16).
    """
    import numpy as np  # noqa: PLC0415

    if datatype == "BYTES":
        return np.dtype(object)
    if datatype in _WIRE_TYPES:
        return np.dtype(_WIRE_TYPES[datatype])
    if datatype in get_args(Datatype):
        msg = f"tensors of datatype {datatype} can't be carried: numpy has no such type"
        raise InvalidInputError(msg, cure="let the model take FP32 or FP16")
    msg = f"no such datatype: {datatype[:100]!r}"
    raise InvalidInputError(msg, cure=f"use one of {', '.join((*_WIRE_TYPES, 'BYTES'))}")


@functools.cache
def datatype_of(dtype: np.dtype[Any]) -> Datatype:
    """The datatype of arrays of this dtype; strings of any kind and objects are BYTES.

    Raises:
        InvalidInputError: the protocol has no such type (complex numbers, dates, records).
    """
    if dtype.kind in "OSU":
        return "BYTES"
    little = dtype.newbyteorder("<")
    for name in _WIRE_TYPES:
        if dtype_of(name) == little:
            return cast("Datatype", name)
    msg = f"arrays of {dtype} can't be carried"
    raise InvalidInputError(msg, cure="convert the array, for example with .astype('float32')")


def count_of(shape: Sequence[int], *, name: str) -> int:
    """How many elements a tensor of that shape has.

    Raises:
        InvalidInputError: a negative length, more than `MAX_RANK` dimensions or `MAX_ELEMENTS`.
    """
    if len(shape) > MAX_RANK:
        msg = f"tensor {name!r} has {len(shape)} dimensions, {MAX_RANK} are allowed"
        raise InvalidInputError(msg)
    if any(length < 0 for length in shape):
        msg = f"tensor {name!r} has a negative length in its shape {list(shape)}"
        raise InvalidInputError(msg)
    # Without the zeros, because numpy multiplies the other lengths of an empty array too.
    if math.prod(length for length in shape if length) > MAX_ELEMENTS:
        msg = f"tensor {name!r} of shape {list(shape)} is over the limit of {MAX_ELEMENTS} elements"
        raise InvalidInputError(msg)
    return math.prod(shape)


def from_bytes(
    data: bytes | memoryview, datatype: str, shape: Sequence[int], *, name: str
) -> NDArray[Any]:
    """The tensor that these raw bytes hold; a read-only view of them where alignment allows.

    Raises:
        InvalidInputError: the bytes don't fit the datatype and shape.
    """
    import numpy as np  # noqa: PLC0415

    dtype = dtype_of(datatype)
    count = count_of(shape, name=name)
    if datatype == "BYTES":
        return _read_elements(memoryview(data), count, name).reshape(shape)
    if len(data) != count * dtype.itemsize:
        msg = (
            f"tensor {name!r} has {len(data)} bytes of data, "
            f"{datatype}{list(shape)} takes {count * dtype.itemsize}"
        )
        raise InvalidInputError(msg)
    if datatype == "BOOL":  # any byte may arrive, and only 0 and 1 are legal in a numpy bool
        return np.frombuffer(data, np.uint8).astype(np.bool_).reshape(shape)
    array: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def to_bytes(array: NDArray[Any], *, name: str) -> bytes | memoryview:
    """The raw bytes of a tensor; a view of it when it is large and lies in memory as it travels.

    Raises:
        InvalidInputError: the protocol can't carry this dtype, or an element isn't str or bytes.
    """
    import numpy as np  # noqa: PLC0415

    datatype = datatype_of(array.dtype)
    if datatype == "BYTES":
        parts: list[bytes] = []
        for element in elements_of(array, name):
            parts += (_LENGTH.pack(len(element)), element)
        return b"".join(parts)
    wire = np.asarray(array, dtype_of(datatype), order="C")
    if wire.nbytes < _COPIED_BELOW:
        return wire.tobytes()
    return wire.reshape(-1).view(np.uint8).data


def elements_of(array: NDArray[Any], name: str) -> list[bytes]:
    """The elements of a BYTES tensor, flat, text in UTF-8.

    Raises:
        InvalidInputError: an element is neither str nor bytes.
    """
    elements: list[bytes] = []
    for element in array.reshape(-1).tolist():
        if isinstance(element, str):
            elements.append(_utf8(element, name))
        elif isinstance(element, bytes):
            elements.append(element)
        else:
            msg = f"BYTES tensor {name!r} holds a {type(element).__name__}, not str or bytes"
            raise InvalidInputError(msg)
    return elements


def _read_elements(data: memoryview, count: int, name: str) -> NDArray[Any]:
    """The elements of a BYTES tensor; every length prefix is held against what is left."""
    import numpy as np  # noqa: PLC0415

    size = len(data)
    if count * _LENGTH.size > size:
        msg = f"tensor {name!r} has {size} bytes of data, too few for {count} BYTES elements"
        raise InvalidInputError(msg)
    array = np.empty(count, object)
    offset = 0
    for index in range(count):
        start = offset + _LENGTH.size
        offset = start + _LENGTH.unpack_from(data, offset)[0] if start <= size else start
        if offset > size:
            msg = (
                f"element {index} of BYTES tensor {name!r} reaches beyond its {size} bytes of data"
            )
            raise InvalidInputError(msg)
        array[index] = bytes(data[start:offset])
    if offset != size:
        msg = f"BYTES tensor {name!r} has {size - offset} bytes behind its {count} elements"
        raise InvalidInputError(msg)
    return array


def _utf8(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        msg = f"BYTES tensor {name!r} holds text that is not Unicode: {error.reason}"
        raise InvalidInputError(msg) from error
