"""Arrays out of ``.npy`` files that devices wrote: checked before anything is allocated.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, versions 1.0 and
2.0, of plain elements. Objects, which would have to be unpickled, and structures are refused.
"""

from __future__ import annotations

import ast
import math
from typing import TYPE_CHECKING, Any

from edgefleet.analysis.extra import needs
from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}  # of the header's length, by version
MAX_HEADER_BYTES = 64 << 10
_REFUSALS = (
    *(ValueError, TypeError, KeyError, SyntaxError),
    *(OverflowError, RecursionError, MemoryError),  # of Python's parser, for what nests too deep
)


def read_npy(data: bytes) -> NDArray[Any]:
    """The array of a file.

    Raises:
        InvalidInputError: it is no such file, holds objects, or fewer elements than it says.
    """
    np = needs("numpy")
    try:
        header, start = _header(data)
        shape, dtype = tuple(map(int, header["shape"])), np.dtype(str(header["descr"]))
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError("it holds objects, or is shaped like nothing")
        if not math.prod(shape):
            return np.empty(shape, dtype)  # type: ignore[no-any-return]
        flat = np.frombuffer(data, dtype, math.prod(shape), start)
        order = "F" if header["fortran_order"] else "C"
        array: NDArray[Any] = np.array(flat.reshape(shape, order=order))
    except _REFUSALS as error:
        msg = f"no .npy file: {str(error)[:200]}"
        raise InvalidInputError(msg, cure="read it with Dataset.blob") from error
    return array


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """What a file says of its array, and where the elements begin."""
    version = tuple(data[6:8])
    if not data.startswith(_MAGIC) or version not in _LENGTH_BYTES:
        raise ValueError("it begins otherwise")
    start = 8 + _LENGTH_BYTES[version]
    end = start + int.from_bytes(data[8:start], "little")
    if end > min(len(data), start + MAX_HEADER_BYTES):
        raise ValueError("its header is cut short, or too long")
    header = ast.literal_eval(data[start:end].decode("latin-1").strip())
    if not isinstance(header, dict):
        raise TypeError("its header is no dictionary")
    return header, end
