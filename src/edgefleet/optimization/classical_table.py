"""Rows as a fitted estimator takes them, and the same rows as an ONNX model takes them.

Rules kept here:

- The original is asked with what the caller gave: a DataFrame stays one.
- The model takes one matrix ``X``, or, where columns differ in kind or the estimator picks them by
  name, one input a column, named as the column is.
- Numbers become float32, or float64 where that was asked for; nothing else loses a bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgefleet.optimization.samples import Feed

MATRIX = "X"
"""The name of the one input of a model that takes a matrix."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of features.

    Attributes:
        rows: a numpy array ``[rows, features]`` or a pandas DataFrame.
        columns: name -> kind of each column that is an input of its own: ``f`` float, ``i`` whole
            number, ``b`` bool, ``s`` text. Empty where the whole is one matrix.
    """

    rows: Any
    columns: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        """Features in a row."""
        return int(self.rows.shape[1])

    def take(self, positions: NDArray[Any]) -> Table:
        """The rows at these positions."""
        framed = hasattr(self.rows, "iloc")
        return Table(self.rows.iloc[positions] if framed else self.rows[positions], self.columns)

    def feed(self, *, double: bool) -> Feed:
        """What the ONNX model takes for these rows."""
        import numpy as np

        number: type[Any] = np.float64 if double else np.float32
        with np.errstate(over="ignore"):  # too large for float32 is infinite there
            if not self.columns:
                return {MATRIX: np.ascontiguousarray(np.asarray(self.rows), dtype=number)}
            kinds: dict[str, Any] = {"f": number, "i": np.int64, "b": np.bool_, "s": object}
            return {
                name: np.asarray(self.rows[name]).astype(kinds[kind]).reshape(-1, 1)
                for name, kind in self.columns.items()
            }

    def types(self, *, double: bool) -> list[tuple[str, Any]]:
        """The same as skl2onnx is told it: names and tensor types."""
        from skl2onnx.common import data_types

        number = data_types.DoubleTensorType if double else data_types.FloatTensorType
        if not self.columns:
            return [(MATRIX, number([None, self.width]))]
        kinds = {
            "f": number,
            "i": data_types.Int64TensorType,
            "b": data_types.BooleanTensorType,
            "s": data_types.StringTensorType,
        }
        return [(name, kinds[kind]([None, 1])) for name, kind in self.columns.items()]

    def floats(self) -> NDArray[Any]:
        """The features that may take any value, ``float64[rows, n]``."""
        import numpy as np

        if not self.columns:
            return np.asarray(self.rows, dtype=np.float64)
        names = [name for name, kind in self.columns.items() if kind == "f"]
        found: NDArray[Any] = self.rows[names].to_numpy(dtype=np.float64)
        return found

    def moved(self, floats: NDArray[Any]) -> Table:
        """These rows with other values in the features that `floats` gives."""
        import numpy as np

        if not hasattr(self.rows, "iloc"):
            kept = self.rows.dtype if self.rows.dtype.kind == "f" else np.float64
            return Table(floats.astype(kept), self.columns)
        names = [name for name, kind in self.columns.items() if kind == "f"]
        names = names if self.columns else list(self.rows.columns)
        values = dict(zip(names, floats.T, strict=True))
        for name, column in values.items():
            kind = self.rows[name].dtype
            values[name] = column.astype(kind) if kind.kind == "f" else column
        return Table(self.rows.assign(**values), self.columns)


def table_of(samples: object, *, by_column: bool) -> Table:
    """Hold the caller's rows against what can be converted.

    Args:
        samples: an array or lists ``[rows, features]``, or a pandas DataFrame.
        by_column: the estimator picks columns by name.

    Raises:
        InvalidInputError: sparse, not two-dimensional, empty, or of a kind that no tensor holds.
    """
    import numpy as np

    if hasattr(samples, "tocsr"):
        raise InvalidInputError(
            "the samples are a sparse matrix, and a device serves dense tensors",
            cure="give samples.toarray(), and train on it too if the estimator minds",
        )
    if hasattr(samples, "iloc") and hasattr(samples, "columns"):
        return _framed(samples, by_column=by_column)
    try:
        rows = np.asarray(samples)
    except ValueError as error:  # lists of unequal lengths
        raise InvalidInputError(
            f"the samples are no table: {error}", cure="give every row as many features"
        ) from error
    if rows.dtype.kind not in "fiub":
        raise InvalidInputError(
            f"the samples are an array of {rows.dtype}, not of numbers",
            cure="give a pandas DataFrame with a column a feature if some are text; whole texts "
            "have no place in a table: make numbers of them before the model",
        )
    if rows.ndim != 2 or not rows.size:
        raise InvalidInputError(
            f"the samples have shape {rows.shape}", cure="give some rows: [rows, features]"
        )
    return Table(rows)


def _framed(frame: Any, *, by_column: bool) -> Table:  # noqa: ANN401 - pandas may be absent
    if getattr(frame, "ndim", 0) != 2 or not frame.shape[0] or not frame.shape[1]:
        raise InvalidInputError("the samples are an empty table", cure="give some rows")
    odd = [name for name in frame.columns if not isinstance(name, str)]
    if odd:
        raise InvalidInputError(
            f"the column {odd[0]!r} has no text as its name",
            cure="name the columns, and fit the estimator with these names",
        )
    kinds = {name: _kind(frame[name], name) for name in frame.columns}
    numbers = set(kinds.values()) <= {"f", "i", "b"}
    return Table(frame, {} if numbers and not by_column else kinds)


def _kind(column: Any, name: str) -> str:  # noqa: ANN401 - as above
    """The kind of a column.

    Raises:
        InvalidInputError: no tensor holds it.
    """
    import numpy as np

    kind = str(getattr(column.dtype, "kind", "O"))
    missing = not isinstance(column.dtype, np.dtype) and bool(column.isna().any())
    if kind in "iufb" and not missing:
        return "i" if kind == "u" else kind
    values = column.tolist()
    if kind != "M" and all(isinstance(value, str) for value in values):
        return "s"
    odd = [value for value in values if not isinstance(value, str | int | float)]
    odd += [value for value in values if not isinstance(value, str)]
    found = odd[0] if odd else values[0]
    raise InvalidInputError(
        f"the column {name!r} holds {type(found).__name__} ({column.dtype})",
        cure="a column is of numbers, of bool or of text throughout: fill what is missing, "
        "and make numbers of times and of categories that are no text",
    )
