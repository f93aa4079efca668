"""Tensors in JSON: one flat list of values, or lists nested by the tensor's shape.

Rules kept here:

- JSON is parsed into Python's numbers and strings first, which take up to 60 bytes each: what would
  give more of them than the shape has, or than `MAX_JSON_ELEMENTS`, is refused before that.
- Values are of the datatype or refused: no number from a string, no truth from a number, and none
  that the datatype can't hold.
- JSON has no NaN, no infinity and no bytes: such tensors travel as raw bytes only.
"""

from __future__ import annotations

import functools
import re
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.tensors import count_of, datatype_of, dtype_of, elements_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_JSON_ELEMENTS = 1 << 23  # elements of one tensor
_NESTED = re.compile(rb"\s*\[\s*\[")


def from_json(
    data: bytes | memoryview, datatype: str, shape: Sequence[int], *, name: str
) -> NDArray[Any]:
    """The tensor that this JSON list holds, flat or nested by the shape.

    Raises:
        InvalidInputError: it isn't such a list, its values aren't of the datatype or don't fit it.
    """
    import numpy as np  # noqa: PLC0415

    dtype = dtype_of(datatype)
    count = count_of(shape, name=name)
    raw = bytes(data)
    if not count:
        if raw.translate(None, b"[], \t\r\n"):
            msg = f"tensor {name!r} has values, its shape {list(shape)} takes none"
            raise InvalidInputError(msg)
        return np.empty(shape, dtype)
    _refuse_excess(raw, datatype, count, name)
    depth = len(shape) if _NESTED.match(raw) else 1
    try:
        values = _list_decoder(datatype, depth).decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"the data of tensor {name!r} is no list of {datatype}{list(shape)}: {error}"
        raise InvalidInputError(msg) from error
    for length in shape[1:] if depth > 1 else ():
        if any(len(value) != length for value in values):
            msg = f"the nested lists of tensor {name!r} don't have the shape {list(shape)}"
            raise InvalidInputError(msg)
        values = list(chain.from_iterable(values))
    if len(values) != count:
        msg = f"tensor {name!r} has {len(values)} values, its shape {list(shape)} takes {count}"
        raise InvalidInputError(msg)
    if datatype == "BYTES":
        array = np.empty(count, dtype)
        array[:] = [value.encode() for value in values]
        return array.reshape(shape)
    try:
        with np.errstate(over="ignore"):
            array = np.array(values, dtype)
    except OverflowError as error:
        msg = f"a value of tensor {name!r} does not fit {datatype}: {error}"
        raise InvalidInputError(msg) from error
    # JSON has no infinity: one that is here now was a number too large for the datatype.
    if dtype.kind == "f" and not np.isfinite(array).all():
        msg = f"a value of tensor {name!r} does not fit {datatype}"
        raise InvalidInputError(msg)
    return array.reshape(shape)


def to_json(array: NDArray[Any], *, name: str) -> list[Any]:
    """The flat list that JSON carries.

    Raises:
        InvalidInputError: JSON can't carry the values: NaN, infinity, bytes that aren't UTF-8.
    """
    import numpy as np  # noqa: PLC0415

    datatype = datatype_of(array.dtype)
    if datatype == "BYTES":
        try:
            return [element.decode() for element in elements_of(array, name)]
        except UnicodeDecodeError as error:
            msg = f"tensor {name!r} holds bytes that are not UTF-8, which JSON can't carry"
            raise InvalidInputError(msg, cure="ask for binary tensor data") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        msg = f"tensor {name!r} holds NaN or infinity, which JSON can't carry"
        raise InvalidInputError(msg, cure="ask for binary tensor data")
    values: list[Any] = array.reshape(-1).tolist()
    return values


def _refuse_excess(raw: bytes, datatype: str, count: int, name: str) -> None:
    """Refuse before parsing what would parse to many more values than the shape has.

    A list of numbers has one comma less than numbers, flat or nested; a string has two quotes, and
    each further quote in it a backslash.
    """
    if count > MAX_JSON_ELEMENTS:
        msg = f"tensor {name!r} has {count} elements, {MAX_JSON_ELEMENTS} are allowed in JSON"
        raise InvalidInputError(msg, cure="send it as binary tensor data")
    if datatype == "BYTES":
        excess = raw.count(b'"') > 2 * count + raw.count(b"\\")
    else:
        excess = raw.count(b",") >= count
    if excess:
        msg = f"tensor {name!r} has more values than the {count} of its shape"
        raise InvalidInputError(msg)


@functools.lru_cache(maxsize=512)
def _list_decoder(datatype: str, depth: int) -> msgspec.json.Decoder[list[Any]]:
    kind = _json_type(datatype)
    for _ in range(depth):
        kind = list.__class_getitem__(kind)  # list[kind], for which a type checker wants a type
    return msgspec.json.Decoder(kind)


def _json_type(datatype: str) -> Any:  # noqa: ANN401 - a type that mypy can't know
    if datatype == "BYTES":
        return str
    if datatype == "BOOL":
        return bool
    if datatype.startswith("FP"):
        return float
    if datatype == "UINT64":  # msgspec's bounds stop at 63 bits; numpy refuses what lies above
        return Annotated[int, msgspec.Meta(ge=0)]
    dtype = dtype_of(datatype)
    if dtype.kind == "u":
        return Annotated[int, msgspec.Meta(ge=0, le=(1 << dtype.itemsize * 8) - 1)]
    largest = (1 << dtype.itemsize * 8 - 1) - 1
    return Annotated[int, msgspec.Meta(ge=-largest - 1, le=largest)]
