"""Labels that people gave to samples: kept by sample, so that they outlive datasets.

``labels/MODEL.parquet`` in a dataset's folder holds every opinion: who said what of which sample,
when. Rules kept here:

- An import adds opinions and loses none; the same opinion again changes nothing.
- Where opinions differ, the latest holds; or what most people say, counting each by the latest
  word of theirs. A tie goes to the latest. Differences are counted and told.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec

from edgefleet.analysis.extra import needs, needs_pyarrow
from edgefleet.errors import DocumentError, NotFoundError
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.files import replacing
from edgefleet.protocol.typed import convert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgefleet.analysis.dataset_rows import Row

FOLDER = "labels"
Prefer = Literal["latest", "most"]
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
MAX_LABEL = 256  # characters
_PREFER = b"edgefleet.prefer"  # of the table's schema


class Opinion(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What somebody said of a sample.

    Attributes:
        sample: the digest that stands for its inputs.
        at: when.
        by: who; empty where that isn't known.
        label: the class.
    """

    sample: Digest
    at: Timestamp
    by: str = ""
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LABEL)]


class Labels(NamedTuple):
    """All that people said, and how differences are settled.

    Attributes:
        opinions: in the order of samples.
        prefer: as of the last import.
    """

    opinions: tuple[Opinion, ...] = ()
    prefer: Prefer = "latest"


def labels_path(root: Path, model: str) -> Path:
    """Where the labels of a model lie below a dataset's folder."""
    return root / FOLDER / f"{model}.parquet"


def labels_in(path: Path, model: str) -> Labels:
    """What lies in a dataset's folder, or in a file of labels; none where there are none.

    Raises:
        DocumentError: the file is no table of labels.
    """
    file = labels_path(path, model) if path.is_dir() else path
    if not file.exists():
        return Labels()
    pa = needs_pyarrow()
    try:
        table = needs("pyarrow.parquet").read_table(file, partitioning=None)
        prefer = (table.schema.metadata or {}).get(_PREFER, b"latest").decode()
        found = convert(
            (table.select(_schema().names).cast(_schema()).to_pylist(), prefer),
            tuple[tuple[Opinion, ...], Prefer],
        )
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        msg = f"{file} is no table of labels: {error}"
        raise DocumentError(msg, cure="import the labels again") from error
    return Labels(*found)


def given_labels(path: Path | str, model: str) -> dict[str, str]:
    """Class by sample, of a dataset's folder or a file of labels.

    Raises:
        NotFoundError: there are no labels.
    """
    root = Path(path)
    file = labels_path(root, model) if root.is_dir() else root
    if not file.is_file():
        msg = f"no labels of {model!r} at {path}"
        raise NotFoundError(msg, cure="give a dataset's folder after Dataset.import_labels")
    return {sample: one.label for sample, one in settled(labels_in(root, model)).items()}


def settled(labels: Labels) -> dict[str, Opinion]:
    """The opinion that holds of each sample."""
    by_sample: dict[str, list[Opinion]] = {}
    for one in sorted(labels.opinions, key=lambda one: (one.at, one.by, one.label)):
        by_sample.setdefault(one.sample, []).append(one)
    if labels.prefer == "latest":
        return {sample: held[-1] for sample, held in by_sample.items()}
    return {sample: _of_most(held) for sample, held in by_sample.items()}


def _of_most(held: Sequence[Opinion]) -> Opinion:
    words = {one.by or f"#{number}": one for number, one in enumerate(held)}  # the last of each
    votes = Counter(one.label for one in words.values())
    most = max(votes.values())
    return max((o for o in words.values() if votes[o.label] == most), key=lambda o: o.at)


def conflicts(opinions: Iterable[Opinion]) -> dict[str, tuple[str, ...]]:
    """Labels that were given to a sample, in alphabetical order, of samples that were given two."""
    labels: dict[str, set[str]] = {}
    for one in opinions:
        labels.setdefault(one.sample, set()).add(one.label)
    return {sample: tuple(sorted(held)) for sample, held in labels.items() if len(held) > 1}


def labelled_by(rows: Iterable[Row], labels: Labels) -> list[Row]:
    """Rows with the labels that hold; without an opinion, a row keeps what it has."""
    held = settled(labels)
    return [
        msgspec.structs.replace(row, label=held[row.sample].label) if row.sample in held else row
        for row in rows
    ]


def merge(root: Path, model: str, new: Iterable[Opinion], *, prefer: Prefer = "latest") -> int:
    """Add opinions to a folder's; returns how many weren't there."""
    before = labels_in(root, model)
    after = sorted({*before.opinions, *new})
    if len(after) > len(before.opinions) or prefer != before.prefer:
        path = labels_path(root, model)
        path.parent.mkdir(parents=True, exist_ok=True)
        schema = _schema().with_metadata({_PREFER: prefer.encode()})
        table = needs_pyarrow().Table.from_pylist(list(map(msgspec.structs.asdict, after)), schema)
        with replacing(path) as partial:
            needs("pyarrow.parquet").write_table(table, partial, compression="zstd")
    return len(after) - len(before.opinions)


def _schema() -> Any:  # noqa: ANN401 - pyarrow ships no types
    pa = needs_pyarrow()
    texts = [(name, pa.string()) for name in ("by", "label")]
    return pa.schema([("sample", pa.string()), ("at", pa.timestamp("us", tz="UTC")), *texts])
