"""Writing a dataset's folder: files first, each whole, the manifest last.

Killed anywhere, what was fetched stays and the next call goes on from it. A folder that holds a
dataset is never made another one, and one that holds other things isn't touched.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from edgefleet.analysis import dataset_records as records
from edgefleet.analysis.dataset_rows import content_digest, counts_of, to_table
from edgefleet.analysis.extra import needs
from edgefleet.analysis.labelling import FOLDER
from edgefleet.errors import AlreadyExistsError, NotFoundError
from edgefleet.protocol.digest import blob_path, digest_of_file
from edgefleet.protocol.documents import encode
from edgefleet.protocol.files import place, replacing, translate_full, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgefleet.analysis.dataset_folder import Held
    from edgefleet.analysis.dataset_records import Choice, Found, Manifest, Provenance
    from edgefleet.analysis.dataset_rows import Row

_OURS = {records.MANIFEST, records.PROVENANCE, records.TABLE, "blobs", FOLDER}


def check_free(to: Path) -> None:
    """Refuse a folder that is neither new, nor a dataset's, nor what an interrupted call left.

    Files below ``blobs`` that a dataset doesn't name are removed, and bundles keep theirs there.

    Raises:
        AlreadyExistsError: it holds other things, or is a file.
    """
    try:
        names = {path.name for path in to.iterdir()}
    except FileNotFoundError:
        return
    except NotADirectoryError as error:
        raise AlreadyExistsError(f"{to} is a file", cure="name a new folder") from error
    strange = {name for name in names - _OURS if not name.endswith(".partial")}
    if strange and records.MANIFEST not in names:
        msg = f"{to} holds {min(strange)!r}, which is of no dataset"
        raise AlreadyExistsError(msg, cure="name a folder that is new or empty")


def write(
    to: Path,
    *,
    model: str,
    rows: Sequence[Row],
    classes: tuple[str, ...],
    choice: Choice,
    found: Found,
    provenance: Provenance,
    numbered: Callable[[Manifest], int | None],
) -> None:
    """Make a folder, whose files are there already, a dataset.

    Args:
        to: the folder.
        model: whose samples.
        rows: what it is to hold.
        classes: class names by index.
        choice: what was asked for.
        found: what there was.
        provenance: what it was made from.
        numbered: gives the version's number, once the table is written.

    Raises:
        AlreadyExistsError: the folder holds another dataset.
        StorageFullError: no room.
    """
    digest = content_digest(model, rows)
    there = _there(to, digest)
    if there is not None:
        if there.number is None and (number := numbered(there)) is not None:  # one wasn't asked for
            _write_manifest(to, msgspec.structs.replace(there, number=number))
        return
    with translate_full(to):
        to.mkdir(parents=True, exist_ok=True)
    with replacing(to / records.TABLE) as partial:
        needs("pyarrow.parquet").write_table(to_table(rows), partial, compression="zstd")
    manifest = records.Manifest(
        model=model,
        digest=digest,
        made=datetime.now(UTC),
        table=digest_of_file(to / records.TABLE)[0],
        samples=len(rows),
        classes=classes,
        counts=counts_of(rows),
        labelled=sum(bool(row.label) for row in rows),
        choice=choice,
        found=found,
    )
    manifest = msgspec.structs.replace(manifest, number=numbered(manifest))
    limit = records.MAX_PROVENANCE_BYTES
    write_whole(to / records.PROVENANCE, encode(provenance, max_bytes=limit))
    _write_manifest(to, manifest)


def _write_manifest(to: Path, manifest: Manifest) -> None:
    data = encode(manifest, max_bytes=records.MAX_MANIFEST_BYTES)
    write_whole(to / records.MANIFEST, data)


def save(dataset: Held, to: Path) -> None:
    """See `Dataset.save`."""
    check_free(to)
    _there(to, content_digest(dataset.model, dataset.rows))  # refused before a file lies in it
    for digest in {one for row in dataset for one in row.inputs.values()}:
        source = dataset.path / blob_path(digest)
        if not source.exists():
            msg = f"{dataset.path} doesn't hold {digest}"
            raise NotFoundError(msg, cure="make the dataset again: files that are there stay")
        place(source, to / blob_path(digest))
    write(
        to,
        model=dataset.model,
        rows=dataset.rows,
        classes=dataset.manifest.classes,
        choice=dataset.manifest.choice,
        found=dataset.manifest.found,
        provenance=dataset.provenance,
        numbered=lambda _: None,
    )


def _there(to: Path, digest: str) -> Manifest | None:
    """The manifest of the same dataset, where the folder holds it already."""
    try:
        manifest = records.read_manifest(to)
    except NotFoundError:
        return None
    if manifest.digest != digest:
        msg = f"{to} holds another dataset: {manifest.reference}, {manifest.samples} samples"
        raise AlreadyExistsError(msg, cure="name another folder: a dataset isn't rewritten")
    return manifest
