"""The samples of a dataset and their files, as its folder holds them. What is read is checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.analysis import dataset_records as records
from edgefleet.analysis.dataset_rows import Row, content_digest, to_table
from edgefleet.analysis.extra import needs
from edgefleet.analysis.npy import read_npy
from edgefleet.errors import IntegrityError, InvalidInputError, NotFoundError
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.protocol.documents import decode
from edgefleet.protocol.files import open_plain, read_small

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from edgefleet.analysis.dataset_records import Manifest, Provenance


class Held:
    """Samples over a dataset's folder. Iterating gives the rows, oldest first.

    Attributes:
        path: the folder.
        manifest: what ``dataset.json`` says: of the whole version, also where this is a part of it.
        rows: the samples, with the labels that the folder knows of.
        whole: whether these are all that the folder holds.
    """

    def __init__(
        self, path: Path, manifest: Manifest, rows: Iterable[Row], *, whole: bool = False
    ) -> None:
        self.path = path
        self.whole = whole
        self.manifest = manifest
        self.rows = tuple(rows)

    def __fspath__(self) -> str:
        """The folder, so that a whole dataset can be given wherever a path can.

        Raises:
            InvalidInputError: it is only a part of what the folder holds.
        """
        if not self.whole:
            msg = f"this is a part of the dataset at {self.path}"
            raise InvalidInputError(msg, cure="save it first, with Dataset.save(folder)")
        return str(self.path)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def model(self) -> str:
        """Whose samples."""
        return self.manifest.model

    @property
    def digest(self) -> str:
        """Digest of what this holds, labels that were imported since included."""
        return content_digest(self.model, self.rows)

    @property
    def reference(self) -> str:
        """``model:number`` of the version in the folder; its digest where it has no number."""
        return self.manifest.reference

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by index where the bundle names them; else the ones that occur, sorted."""
        return self.manifest.classes or tuple(sorted({r.known_class for r in self} - {""}))

    @property
    def provenance(self) -> Provenance:
        """What it was made from, and what was missing."""
        data = read_small(self.path / records.PROVENANCE, records.MAX_PROVENANCE_BYTES)
        return decode(records.Provenance, data, max_bytes=records.MAX_PROVENANCE_BYTES)

    def blob(self, digest: str) -> bytes:
        """The content of a file of a sample.

        Raises:
            NotFoundError: the folder doesn't hold it.
            IntegrityError: it holds other content.
        """
        try:
            with open_plain(self.path / blob_path(digest)) as stream:
                data: bytes = stream.read()
        except FileNotFoundError as error:
            msg = f"{self.path} doesn't hold {digest}"
            cure = "make the dataset again: files that are there stay"
            raise NotFoundError(msg, cure=cure) from error
        if digest_of(data) != digest:
            msg = f"{self.path / blob_path(digest)} holds other content"
            raise IntegrityError(msg, cure="remove that file and make the dataset again")
        return data

    def array(self, row: Row, name: str | None = None) -> NDArray[Any]:
        """An input of a sample, as it was captured.

        Args:
            row: the sample.
            name: of the input; None for the only one.

        Raises:
            InvalidInputError: the sample has no such input, or it is no ``.npy`` file.
        """
        name = _only(row.inputs, name)
        try:
            return read_npy(self.blob(row.inputs[name]))
        except InvalidInputError as error:
            error.prefixed(f"input {name!r} of sample {row.sample}")
            raise

    def arrays(self, name: str | None = None) -> NDArray[Any]:
        """An input of all samples as one array: ``[samples, …]``, in the order of the rows.

        A batch axis of 1 that every sample has is dropped.

        Args:
            name: of the input; None for the only one.

        Raises:
            InvalidInputError: the samples' shapes or types differ.
        """
        np = needs("numpy")
        found = [self.array(row, name) for row in self]
        kinds = {(array.shape, array.dtype.str) for array in found}
        if len(kinds) > 1:
            told = ", ".join(sorted(f"{dtype}{list(shape)}" for shape, dtype in kinds)[:4])
            msg = f"the samples' inputs are of several kinds: {told}"
            raise InvalidInputError(msg, cure="take them one at a time with Dataset.array")
        if not found:
            return np.empty((0,))  # type: ignore[no-any-return]
        single = found[0].ndim > 1 and found[0].shape[0] == 1
        stacked: NDArray[Any] = np.concatenate(found) if single else np.stack(found)  # noqa: PD013
        return stacked

    def to_arrow(self) -> Any:  # noqa: ANN401 - pyarrow ships no types
        """The table as pyarrow has it."""
        return to_table(self.rows)

    def to_pandas(self) -> pd.DataFrame:
        """One row a sample; inputs and outputs as lists of name and digest."""
        needs("pandas")
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame


def _only(inputs: dict[str, str], name: str | None) -> str:
    names = ", ".join(sorted(inputs))
    if name is None:
        if len(inputs) != 1:
            raise InvalidInputError(f"the sample has several inputs: {names}", cure="name one")
        return next(iter(inputs))
    if name not in inputs:
        raise InvalidInputError(f"the sample has no input {name!r}", cure=f"its inputs: {names}")
    return name
