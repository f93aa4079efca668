"""What a dataset says of each of its samples, and the table on disk that holds it.

The table is Parquet, one row a sample, for whatever reads Parquet. Two samples with the same inputs
are one: its key is the digest of its input, or of the digests of all its inputs by name.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from edgefleet.analysis.extra import needs_pyarrow
from edgefleet.errors import DocumentError
from edgefleet.protocol.digest import Digest, digest_of
from edgefleet.protocol.typed import convert

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import pyarrow as pa

    from edgefleet.protocol.event import Event, OutputSummary, Sample

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sample and where it came from.

    Attributes:
        sample: digest that stands for its inputs: the same for whoever captured the same.
        id: of the event that told of it; of the first where several captured the same inputs.
        time: of that capture, by the device's clock.
        device: that captured it.
        model: that answered.
        version: the registry's version of it.
        bundle: digest of its bundle, as the event tells, or else the registry; empty where neither
            does.
        release: digest of the newest release of the device's group before that time which held the
            bundle; empty where none is recorded.
        reason: the capturing rule, or who ordered it.
        predicted: class that the model gave, by its name where the bundle names classes, else by
            its index; empty where there are no scores.
        score: of that class; None likewise. Of a batch, both are those of its least sure item.
        label: class that a person gave; empty for none.
        inputs: digest of the ``.npy`` file of each input, by name.
        outputs: likewise.
        captured: how often the same inputs were captured.
    """

    sample: Digest
    id: str
    time: Timestamp
    device: str
    model: str
    version: str
    bundle: str = ""
    release: str = ""
    reason: str = ""
    predicted: str = ""
    score: float | None = None
    label: str = ""
    inputs: dict[str, Digest]
    outputs: dict[str, Digest] = {}
    captured: int = 1

    @property
    def known_class(self) -> str:
        """The label, or else what the model gave."""
        return self.label or self.predicted


def key_of(inputs: dict[str, str]) -> str:
    """The digest that stands for the inputs of one request."""
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    return digest_of(msgspec.json.encode(inputs, order="sorted"))


def row_of(event: Event, sample: Sample, *, answers: Sequence[OutputSummary]) -> Row:
    """A sample as its event tells it, without what only others know.

    Args:
        event: of the sample, attributed to its device.
        sample: its data; it has inputs.
        answers: what is known of its outputs.
    """
    top, score = _least_sure(answers)
    return Row(
        sample=key_of(sample.inputs),
        id=event.id,
        time=event.time.astimezone(UTC),
        device=event.device,
        model=sample.model,
        version=sample.model_version,
        bundle=sample.bundle,
        reason=sample.reason,
        predicted="" if top is None else str(top),
        score=score,
        inputs=sample.inputs,
        outputs=sample.outputs,
    )


def _least_sure(answers: Sequence[OutputSummary]) -> tuple[int | None, float | None]:
    """Best class and score of the first output that holds scores."""
    for answer in answers:
        pairs = [(s, t) for t, s in zip(answer.top, answer.score, strict=False) if s is not None]
        if pairs:
            score, top = min(pairs)
            return top, score
    return None, None


def content_digest(model: str, rows: Iterable[Row]) -> str:
    """The digest of a dataset: of what its rows say, in whatever order they come.

    Releases are left out: they are looked up, and what is known of them grows.
    """
    plain = [msgspec.structs.replace(row, release="") for row in rows]
    plain.sort(key=lambda row: row.sample)
    return digest_of(msgspec.json.encode({"model": model, "rows": plain}, order="sorted"))


def schema() -> pa.Schema:
    """Columns of the table."""
    pa = needs_pyarrow()
    digests = pa.map_(pa.string(), pa.string())
    texts = ("device", "model", "version", "bundle", "release", "reason", "predicted")
    return pa.schema(
        [
            ("sample", pa.string()),
            ("id", pa.string()),
            ("time", pa.timestamp("us", tz="UTC")),
            *((name, pa.string()) for name in texts),
            ("score", pa.float64()),
            ("label", pa.string()),
            ("inputs", digests),
            ("outputs", digests),
            ("captured", pa.int64()),
        ]
    )


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as an Arrow table."""
    pa = needs_pyarrow()
    columns: dict[str, list[Any]] = {name: [] for name in Row.__struct_fields__}
    for row in rows:
        for name, values in columns.items():
            value = getattr(row, name)
            values.append(sorted(value.items()) if isinstance(value, dict) else value)
    return pa.Table.from_pydict(columns, schema=schema())


def read_rows(path: Path) -> list[Row]:
    """The rows of a table on disk, in its order.

    Raises:
        DocumentError: it is no such table.
    """
    pa = needs_pyarrow()
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, schema=schema(), partitioning=None)
        found = [
            {**one, "inputs": dict(one["inputs"]), "outputs": dict(one["outputs"])}
            for one in table.to_pylist()
        ]
        rows: list[Row] = convert(found, list[Row])
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        msg = f"{path} is no table of samples: {error}"
        raise DocumentError(msg, cure="make the dataset again") from error
    return rows


def counts_of(rows: Sequence[Row]) -> dict[str, int]:
    """Samples by class, sorted; those of no class aren't counted."""
    return dict(sorted(Counter(row.known_class for row in rows if row.known_class).items()))
