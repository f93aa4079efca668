"""What arrays and tables hold, as bytes and parts that a fingerprint takes in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Any


@dataclass(frozen=True, slots=True)
class Content:
    """What a value holds.

    Attributes:
        told: what it says of itself, and its bytes.
        parts: values that it consists of besides.
    """

    told: tuple[str | bytes | memoryview, ...]
    parts: tuple[object, ...] = ()


def content_of(value: object) -> Content | None:
    """What a value of numpy, pandas or pyarrow, or a path, holds; None for others."""
    library = type(value).__module__.partition(".")[0]
    if library == "numpy":
        return _numpy(value)
    if library == "pandas":
        return _pandas(value)
    if library == "pyarrow":
        return _pyarrow(value)
    return Content(("path", str(value))) if isinstance(value, PurePath) else None


def _numpy(value: Any) -> Content | None:  # noqa: ANN401 - an array, a scalar, a dtype, a ufunc
    import numpy as np

    if isinstance(value, np.ufunc):
        own = getattr(np, value.__name__, None) is value  # others call what they don't show
        return Content(("ufunc", value.__name__, np.__version__)) if own else None
    if isinstance(value, np.dtype):
        return Content(("dtype", str(value.descr)))
    if not isinstance(value, np.generic) and type(value) is not np.ndarray:
        return None
    array = np.asarray(value)
    told = (type(value).__name__, str(array.dtype.descr), str(array.shape))
    if array.dtype.hasobject:
        return Content(told, (array.tolist(),))
    return Content((*told, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data))


def _pandas(value: Any) -> Content | None:  # noqa: ANN401 - a frame, a series, an index
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        columns = tuple(column for _, column in value.items())
        return Content(("frame", str(value.shape)), (value.columns, value.index, *columns))
    if not isinstance(value, pd.Series | pd.Index) or isinstance(value, pd.MultiIndex):
        return None
    told = (type(value).__name__, str(value.dtype))
    if isinstance(value.dtype, pd.CategoricalDtype):
        held: Any = value.cat if isinstance(value, pd.Series) else value
        return Content(told, (value.name, held.categories, held.codes))
    return Content(told, (value.name, value.to_numpy()))


def _pyarrow(value: Any) -> Content | None:  # noqa: ANN401 - a table, a batch
    import pyarrow as pa

    if not isinstance(value, pa.Table | pa.RecordBatch):
        return None
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, value.schema) as writer:
        writer.write(value)
    return Content(("arrow", memoryview(sink.getvalue())))
