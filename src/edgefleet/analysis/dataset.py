"""A dataset: captured samples with their predictions and labels, in a folder of open formats.

The folder holds ``dataset.json`` (what it is), ``samples.parquet`` (a row a sample), ``blobs/``
(inputs as ``.npy`` files by digest), ``provenance.json`` (what it was made from) and, once somebody
has labelled, ``labels/MODEL.parquet``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from edgefleet.analysis import dataset_records as records
from edgefleet.analysis.dataset_folder import Held
from edgefleet.analysis.dataset_rows import read_rows
from edgefleet.analysis.dataset_writing import save
from edgefleet.analysis.exporting import export_images, export_parquet
from edgefleet.analysis.label_studio import export_label_studio, import_labels
from edgefleet.analysis.labelling import labelled_by, labels_in, settled
from edgefleet.errors import IntegrityError, InvalidInputError
from edgefleet.protocol.digest import digest_of, digest_of_file
from edgefleet.protocol.documents import to_builtins

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from edgefleet.analysis.dataset_rows import Row
    from edgefleet.analysis.exporting import By
    from edgefleet.analysis.label_studio import Imported
    from edgefleet.analysis.labelling import Prefer

_SPLIT_STEPS = 1 << 32


@final
class Dataset(Held):
    """Samples of one model, as `Fleet.dataset` made them; see `Held` for what they hold."""

    @classmethod
    def open(cls, path: Path | str) -> Dataset:
        """The dataset in a folder.

        Raises:
            NotFoundError: there is none.
            DocumentError: its manifest or table is malformed.
            IntegrityError: its table is another one than the manifest names.
            MissingExtraError: pyarrow isn't installed.
        """
        root = Path(path)
        manifest = records.read_manifest(root)
        table = root / records.TABLE
        if not table.is_file() or digest_of_file(table)[0] != manifest.table:
            msg = f"{table} is missing, or not the table of {root / records.MANIFEST}"
            raise IntegrityError(msg, cure="make the dataset again, or copy the whole folder")
        rows = labelled_by(read_rows(table), labels_in(root, manifest.model))
        return cls(root, manifest, rows, whole=True)

    def facts(self) -> dict[str, Any]:
        """What it is, as JSON-ready data."""
        return {**to_builtins(self.manifest), "path": str(self.path), "held": len(self)}

    def __repr__(self) -> str:
        found = self.manifest.found
        gaps = {
            "missing": found.missing,
            "damaged": found.damaged,
            "unreadable segments": found.unreadable,
        }
        told = "".join(f", {count} {what}" for what, count in gaps.items() if count)
        labelled = sum(bool(row.label) for row in self)
        text = f"{len(self)} samples, {labelled} labelled{told}"
        return f"<dataset {self.reference}: {text}, at {self.path}>"

    def _repr_html_(self) -> str:
        from edgefleet.interfaces.tables import html_table

        counts = Counter(row.known_class or "unknown" for row in self)
        labels = Counter(row.label for row in self if row.label)
        rows = [(name, count, labels[name]) for name, count in sorted(counts.items())]
        return html_table(("class", "samples", "labelled"), rows, caption=repr(self))

    # Parts

    def part(self, rows: Iterable[Row]) -> Dataset:
        """Some of its rows, over the same folder."""
        return Dataset(self.path, self.manifest, rows)

    def labelled(self) -> Dataset:
        """The samples that have a label."""
        return self.part(row for row in self if row.label)

    def split(self, *, test: float = 0.2, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Two parts, for training and for testing.

        A sample's side is decided by the digest of its inputs and the seed alone. So it is on the
        same side in every dataset that holds it, and what was tested on is never trained on later.

        Args:
            test: share of the second part, 0 to 1: what large datasets come near to.
            seed: another one, another division.
        """
        if not 0.0 <= test <= 1.0:
            raise InvalidInputError(f"test is a share from 0 to 1, not {test}")
        second = [_place(row.sample, seed) < test * _SPLIT_STEPS for row in self]
        return (
            self.part(r for r, is_test in zip(self, second, strict=True) if not is_test),
            self.part(r for r, is_test in zip(self, second, strict=True) if is_test),
        )

    def save(self, to: Path | str) -> Dataset:
        """Write these rows, with their labels, as a dataset of their own; files are linked.

        It has no number. Saved again, the folder is the same.

        Raises:
            AlreadyExistsError: the folder holds another dataset.
        """
        save(self, Path(to))
        return Dataset.open(to)

    # Other forms

    def export_images(
        self,
        to: Path | str,
        *,
        name: str | None = None,
        by: By = "known",
        shape: Sequence[int] | None = None,
    ) -> dict[str, int]:
        """Write an input that is like an image as PNG files, a folder a class.

        Args:
            to: the folder; classes' folders are made in it. A file is named by its sample.
            name: of the input; None for the only one.
            by: ``label``, ``predicted``, or ``known``: the label, or else what the model gave.
            shape: of an image that the input holds laid flat, such as ``(8, 8)``.

        Returns:
            Files by folder; those of no class are in ``unknown``.

        Raises:
            InvalidInputError: an input is like no image.
            MissingExtraError: pillow isn't installed.
        """
        return export_images(self, Path(to), name=name, by=by, shape=shape)

    def export_parquet(self, to: Path | str) -> Path:
        """Write one Parquet file: the table, and of each input its elements and its shape."""
        return export_parquet(self, Path(to))

    # Labels

    def export_label_studio(
        self,
        to: Path | str,
        *,
        name: str | None = None,
        address: str | None = None,
        shape: Sequence[int] | None = None,
    ) -> Path:
        """Write a folder for Label Studio: tasks, labelling interface and pictures.

        What the model said is a pre-annotation. Inputs that are like no image are shown as numbers.

        Args:
            to: the folder: ``tasks.json``, ``config.xml``, ``images/``.
            name: of the input; None for the only one.
            address: what a picture's file name is put behind; None for a folder that Label Studio
                serves itself, whose document root is the one above ``to``.
            shape: of an image that the input holds laid flat.

        Returns:
            The file of tasks.
        """
        return export_label_studio(self, Path(to), name=name, address=address, shape=shape)

    def import_labels(
        self, exported: Path | str, *, prefer: Prefer = "latest", by: str | None = None
    ) -> Imported:
        """Take over what people chose, into ``labels/MODEL.parquet`` of the folder.

        What was said before stays beside it; the same again changes nothing. Open the dataset anew
        to see the labels, or give its folder to `Fleet.dataset` as ``labels``.

        Args:
            exported: Label Studio's export as JSON, JSON_MIN or CSV.
            prefer: what holds where people differ: the ``latest``, or what ``most`` say.
            by: who labelled; None for whom the export names.

        Raises:
            DocumentError: it is no such export; the message says where.
        """
        return import_labels(self, Path(exported), prefer=prefer, by=by)

    def new_labels_since(self, moment: datetime) -> int:
        """How many samples got their label after that moment."""
        labels = settled(labels_in(self.path, self.model))
        held = {row.sample for row in self}
        return sum(one.at > moment for one in labels.values() if one.sample in held)


def _place(sample: str, seed: int) -> int:
    return int(digest_of(f"split/{seed}/{sample}".encode())[7:15], 16)
