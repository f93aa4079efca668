"""Datasets in other people's formats: folders of pictures, and one Parquet file with everything.

What is like an image: a matrix, or a matrix of 1, 3 or 4 channels, first or last. Bytes are taken
as they are, numbers from 0 to 1 as shares of white; any other range is stretched, by one rule for
the whole dataset, so that pictures compare.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import quote

from edgefleet.analysis.dataset_rows import schema, to_table
from edgefleet.analysis.extra import needs, needs_pyarrow
from edgefleet.errors import InvalidInputError
from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.files import replacing, translate_full

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.analysis.dataset_folder import Held
    from edgefleet.analysis.dataset_rows import Row

By = Literal["known", "label", "predicted"]
UNKNOWN = "unknown"
_CHANNELS = (1, 3, 4)
_ROWS_AT_ONCE = 256


def export_images(
    dataset: Held,
    to: Path,
    *,
    name: str | None = None,
    by: By = "known",
    shape: Sequence[int] | None = None,
) -> dict[str, int]:
    """See `Dataset.export_images`."""
    if by not in get_args(By):
        raise InvalidInputError(f"no {by!r} to sort by", cure="use known, label or predicted")
    counts: Counter[str] = Counter()
    for row, picture in pictures(dataset, name, shape):
        known = row.known_class if by == "known" else getattr(row, by)
        folder = _folder_of(known)
        with translate_full(to):
            (to / folder).mkdir(parents=True, exist_ok=True)
        save_png(picture, to / folder / f"{hex_of(row.sample)}.png")
        counts[folder] += 1
    return dict(sorted(counts.items()))


def pictures(
    dataset: Held, name: str | None, shape: Sequence[int] | None
) -> Iterator[tuple[Row, NDArray[Any]]]:
    """Each sample's input as a picture: ``uint8[height, width]``, or with channels last.

    Raises:
        InvalidInputError: an input is like no image.
    """
    np = needs("numpy")
    least, most = _range(dataset, name)
    for row in dataset:
        array = _like_image(dataset.array(row, name), shape, row)
        if array.dtype != np.uint8:
            spread = (array.astype(np.float64) - least) / (most - least or 1.0)
            array = (np.clip(np.nan_to_num(spread), 0.0, 1.0) * 255.0).round().astype(np.uint8)
        yield row, array


def is_like_image(array: NDArray[Any], shape: Sequence[int] | None = None) -> bool:
    """Whether an array, or what it becomes in another shape, is like an image."""
    return _channels_last(array, shape) is not None


def _range(dataset: Held, name: str | None) -> tuple[float, float]:
    """What becomes black and what white."""
    np = needs("numpy")
    least, most = 0.0, 1.0
    for row in dataset:
        array = dataset.array(row, name)
        if array.dtype.kind not in "biuf":
            continue
        finite = array[np.isfinite(array)]
        if finite.size:
            least, most = min(least, float(finite.min())), max(most, float(finite.max()))
    return least, most


def _like_image(array: NDArray[Any], shape: Sequence[int] | None, row: Row) -> NDArray[Any]:
    found = _channels_last(array, shape)
    if found is None:
        msg = f"sample {row.sample} of shape {list(array.shape)} is like no image"
        raise InvalidInputError(
            msg, cure="give shape=(height, width) where it is one laid flat, or export_parquet"
        )
    return found


def _channels_last(array: NDArray[Any], shape: Sequence[int] | None) -> NDArray[Any] | None:
    np = needs("numpy")
    if array.dtype.kind not in "biuf":
        return None
    if shape is not None:
        if array.size != int(np.prod(shape)):
            return None
        array = array.reshape(tuple(shape))
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    square = array.ndim == 2 and min(array.shape) > 1
    return array if square or (array.ndim == 3 and array.shape[2] in _CHANNELS) else None


def save_png(picture: NDArray[Any], path: Path) -> None:
    """Write a picture as a PNG file that appears when it is whole.

    Raises:
        MissingExtraError: pillow isn't installed.
        StorageFullError: no room.
    """
    image = needs("PIL.Image", extra="images")
    with replacing(path) as partial:
        image.fromarray(needs("numpy").ascontiguousarray(picture)).save(partial, format="PNG")


def _folder_of(known: str) -> str:
    """A class as the name of a folder, safe on every system."""
    name = quote(known, safe=" ").strip() or UNKNOWN
    return f"%2E{name[1:]}" if name.startswith(".") else name


def export_parquet(dataset: Held, to: Path) -> Path:
    """See `Dataset.export_parquet`.

    Raises:
        InvalidInputError: an input is of several types.
    """
    pa = needs_pyarrow()
    writer_of = needs("pyarrow.parquet").ParquetWriter
    names = sorted({name for row in dataset for name in row.inputs})
    types = {name: _type_of(dataset, name) for name in names}
    fields = [
        field
        for name, kind in types.items()
        for field in (
            (f"input.{name}", pa.list_(kind)),
            (f"shape.{name}", pa.list_(pa.int64())),
        )
    ]
    whole = pa.schema([*schema(), *(pa.field(*field) for field in fields)])
    with translate_full(to):
        to.parent.mkdir(parents=True, exist_ok=True)
    with replacing(to) as partial, writer_of(partial, whole, compression="zstd") as writer:
        for start in range(0, len(dataset), _ROWS_AT_ONCE):
            rows = dataset.rows[start : start + _ROWS_AT_ONCE]
            table = to_table(rows)
            for name, kind in types.items():
                arrays = [dataset.array(row, name) if name in row.inputs else None for row in rows]
                if any(a is not None and _kind_of(a) != kind for a in arrays):
                    msg = f"input {name!r} is of several types"
                    raise InvalidInputError(msg, cure="export parts of the dataset, by version")
                flat = [None if a is None else a.ravel() for a in arrays]
                shapes = [None if a is None else list(a.shape) for a in arrays]
                table = table.append_column(f"input.{name}", pa.array(flat, pa.list_(kind)))
                table = table.append_column(f"shape.{name}", pa.array(shapes, pa.list_(pa.int64())))
            writer.write_table(table.cast(whole))
    return to


def _type_of(dataset: Held, name: str) -> Any:  # noqa: ANN401 - pyarrow ships no types
    first = next(row for row in dataset if name in row.inputs)
    return _kind_of(dataset.array(first, name))


def _kind_of(array: NDArray[Any]) -> Any:  # noqa: ANN401 - pyarrow ships no types
    pa = needs_pyarrow()
    return pa.binary() if array.dtype.kind == "S" else pa.from_numpy_dtype(array.dtype)
