"""What the fleet remembers of training runs that had a dataset: which version went in.

``runs/RUN.json`` in the state store. A trainer keeps runs as long as its vendor does; this stays.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import msgspec

from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.state import StateStore

PREFIX = "runs/"
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class RunRecord(Document, frozen=True, kw_only=True):
    """A training run and its data.

    Attributes:
        run: its id.
        model: whose samples it had.
        dataset: digest of the dataset.
        number: of that version.
        labels: digest of the file of labels that lay beside it; None for none.
        script: digest of the training script.
        params: its parameters.
        at: when it was submitted.
        by: who did.
    """

    run: str
    model: str
    dataset: Digest
    number: Annotated[int, msgspec.Meta(ge=1)]
    labels: Digest | None = None
    script: Digest
    params: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
    at: Timestamp
    by: str

    @property
    def reference(self) -> str:
        """The dataset's version, as people write it."""
        return f"{self.model}:{self.number}"

    @property
    def lineage(self) -> dict[str, str]:
        """What a model version says of its origin that came out of this run."""
        told = {"run": self.run, "dataset": self.dataset, "dataset_version": self.reference}
        return told if self.labels is None else {**told, "labels": self.labels}


def run_key(run: str) -> str:
    """Where the state store keeps a run."""
    return f"{PREFIX}{quote(run, safe='')}.json"


def write_run(state: StateStore, record: RunRecord) -> None:
    """Remember a run."""
    state.update(run_key(record.run), lambda _: encode(record))


def read_run(state: StateStore, run: str) -> RunRecord | None:
    """What is remembered of a run; None where it had no dataset."""
    stored = state.read(run_key(run))
    return None if stored is None else decode(RunRecord, stored.data)


def read_runs(state: StateStore) -> Iterator[RunRecord]:
    """All that are remembered, in the order of their ids."""
    for key in state.keys(PREFIX):
        stored = state.read(key)
        if stored is not None:
            yield decode(RunRecord, stored.data)
