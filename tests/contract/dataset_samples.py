"""The documents of datasets as Python values, whose bytes the golden files hold.

`python -m tests.contract.dataset_samples` adds the files that are missing; one that is there is
what lies in people's folders and state stores, and stays.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.analysis import dataset_records as d
from edgefleet.analysis.run_records import RunRecord
from edgefleet.protocol.documents import encode

if TYPE_CHECKING:
    from edgefleet.protocol.documents import Document

GOLDEN = Path(__file__).parent / "golden_datasets"
NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
CONTENT, TABLE, FILE = ("sha256:" + digit * 64 for digit in "123")

DOCUMENTS: dict[str, Document] = {
    "dataset.json": d.Manifest(
        model="digits",
        digest=CONTENT,
        number=4,
        made=NOON,
        table=TABLE,
        samples=118,
        classes=("zero", "one"),
        counts={"one": 60, "zero": 58},
        labelled=20,
        choice=d.Choice(
            strategy="hard-examples",
            since=datetime(2026, 11, 1, tzinfo=UTC),
            until=NOON,
            max=120,
            balance=True,
        ),
        found=d.Found(
            captured=300,
            malformed=1,
            without_inputs=9,
            repeated=40,
            unchosen=130,
            lost=2,
            missing=1,
            damaged=1,
            unreadable=1,
        ),
    ),
    "provenance.json": d.Provenance(
        segments=("devices/cam-07/segments/date=2026-11-21/model=digits/0001-a1b2.ndjson.zst",),
        unreadable={
            "devices/cam-08/segments/date=2026-11-21/model=digits/0001-c3d4.ndjson.zst": "cut short"
        },
        missing={FILE: "cam-07"},
        damaged={CONTENT: "cam-08"},
    ),
    "versions.json": d.Versions(
        versions=(
            d.Version(number=4, digest=CONTENT, table=TABLE, samples=118, made=NOON, by="ada"),
        )
    ),
    "run.json": RunRecord(
        run="train-20261121-120000-ab12",
        model="digits",
        dataset=CONTENT,
        number=4,
        labels=FILE,
        script=TABLE,
        params={"epochs": 5},
        at=NOON,
        by="ada",
    ),
}


def main() -> None:
    """Writes what is missing."""
    GOLDEN.mkdir(exist_ok=True)
    for name, document in DOCUMENTS.items():
        if not (GOLDEN / name).exists():
            (GOLDEN / name).write_bytes(encode(document))
            sys.stdout.write(f"written: {name}\n")


if __name__ == "__main__":
    main()
