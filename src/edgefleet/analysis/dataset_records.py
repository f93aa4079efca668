"""The documents of datasets: what lies beside a table, and what the state store keeps of versions.

- ``dataset.json`` (`Manifest`) names the version and what it was made of; it is written last.
- ``provenance.json`` (`Provenance`) says what was read for it, and what couldn't be.
- ``datasets/MODEL.json`` in the state store (`Versions`) numbers versions: the same content keeps
  its number. Its tables are in the registry's blob store, so that a sample can be followed to every
  dataset that held it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import msgspec

from edgefleet.errors import NotFoundError
from edgefleet.protocol.digest import Digest
from edgefleet.protocol.documents import Document, decode
from edgefleet.protocol.files import read_small
from edgefleet.protocol.names import ModelName

if TYPE_CHECKING:
    from pathlib import Path

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Strategy = Literal["hard-examples", "all", "uniform", "drifted", "rare"]
STRATEGIES: tuple[str, ...] = get_args(Strategy)

MANIFEST = "dataset.json"
PROVENANCE = "provenance.json"
TABLE = "samples.parquet"
TABLE_MEDIA_TYPE = "application/vnd.edgefleet.dataset.table.v1+parquet"
MAX_MANIFEST_BYTES = 1 << 20
MAX_PROVENANCE_BYTES = 256 << 20
MAX_VERSIONS = 1000  # of a model's datasets that are remembered; the oldest go


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for.

    Attributes:
        strategy: which samples come first.
        since: not before this time; None for the first.
        until: before this time; None for the last.
        max: most samples; None for no bound.
        balance: as many of each class.
        labelled: only samples that have a label.
    """

    strategy: Strategy = "all"
    since: Timestamp | None = None
    until: Timestamp | None = None
    max: Annotated[int, msgspec.Meta(ge=1)] | None = None
    balance: bool = False
    labelled: bool = False


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many there were, and what became of them.

    Attributes:
        captured: sample events of the model in that time.
        malformed: of these, that couldn't be read.
        without_inputs: that kept no inputs.
        repeated: that captured inputs which another had captured.
        unchosen: left out by strategy, balance or ``max``, or for want of a label.
        lost: chosen, but left out because a file of theirs wasn't there, or damaged.
        missing: files that weren't there: on the device yet, or dropped.
        damaged: files that hold something else.
        unreadable: segments that were set aside.
    """

    captured: Count = 0
    malformed: Count = 0
    without_inputs: Count = 0
    repeated: Count = 0
    unchosen: Count = 0
    lost: Count = 0
    missing: Count = 0
    damaged: Count = 0
    unreadable: Count = 0


class Manifest(Document, frozen=True, kw_only=True):
    """A version of a dataset.

    Attributes:
        model: whose samples.
        digest: of its content: the same samples and labels, the same digest.
        number: of the version, from 1, as the fleet's state store gave it; None where it was made
            without one.
        made: when.
        table: digest of the table's file.
        samples: rows of the table.
        classes: names by index, of the newest bundle that names any.
        counts: samples by class: the label, or else what the model gave.
        labelled: samples that have a label.
        choice: what was asked for.
        found: what there was.
    """

    model: ModelName
    digest: Digest
    number: Annotated[int, msgspec.Meta(ge=1)] | None = None
    made: Timestamp
    table: Digest
    samples: Count
    classes: tuple[str, ...] = ()
    counts: dict[str, int] = {}  # noqa: RUF012 - msgspec copies it
    labelled: Count = 0
    choice: Choice = Choice()
    found: Found = Found()

    @property
    def reference(self) -> str:
        """``model:number``, or the digest of one without a number."""
        return self.digest if self.number is None else f"{self.model}:{self.number}"


class Provenance(Document, frozen=True, kw_only=True):
    """What a dataset was made from.

    Attributes:
        segments: that were read, by their paths below the fleet's prefix.
        unreadable: why others were set aside, by path.
        missing: digests of files that weren't there, and the device each should have come from.
        damaged: likewise of files that held something else.
    """

    segments: tuple[str, ...] = ()
    unreadable: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    missing: dict[str, str] = {}  # noqa: RUF012
    damaged: dict[str, str] = {}  # noqa: RUF012


class Version(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is remembered of a dataset's version.

    Attributes:
        number: from 1.
        digest: of its content.
        table: digest of its table, in the registry's blob store.
        samples: how many.
        made: when it was made first.
        by: who made it.
    """

    number: Annotated[int, msgspec.Meta(ge=1)]
    digest: Digest
    table: Digest
    samples: Count
    made: Timestamp
    by: str


class Versions(Document, frozen=True, kw_only=True):
    """The versions of a model's datasets, oldest first."""

    versions: tuple[Version, ...] = ()


def read_manifest(root: Path) -> Manifest:
    """What a folder's ``dataset.json`` says.

    Raises:
        NotFoundError: there is none.
        DocumentError: it is malformed.
    """
    try:
        data = read_small(root / MANIFEST, MAX_MANIFEST_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"no dataset at {root}"
        raise NotFoundError(
            msg, cure="make one with fleet.dataset(…), or: edgefleet dataset make"
        ) from error
    return decode(Manifest, data, max_bytes=MAX_MANIFEST_BYTES)
