"""The files of samples: fetched from devices' own places into a dataset's folder, each once.

Rules kept here:

- A file appears under its digest when it is whole and checked. One that is there is checked, and
  fetched again only if it is damaged; so an interrupted call goes on where it stopped.
- A call that ends early leaves nothing in a folder that is another dataset's.
- Files of datasets in folders beside this one are linked, not fetched.
- A file may lie with any device that captured the same content; each is asked before it counts as
  missing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgefleet.analysis.dataset_records import MANIFEST, TABLE
from edgefleet.analysis.dataset_rows import read_rows
from edgefleet.analysis.extra import needs
from edgefleet.analysis.npy import read_npy
from edgefleet.errors import (
    DocumentError,
    IntegrityError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet.protocol.digest import blob_path, digest_of_file, hex_of
from edgefleet.protocol.event import OutputSummary
from edgefleet.protocol.files import place, translate_full, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from edgefleet.interfaces.telemetry import Telemetry

MAX_OUTPUT_BYTES = 1 << 20  # of an output whose scores are read; larger ones are no classes


class SampleFiles:
    """The files of one dataset's folder.

    Args:
        telemetry: where devices' files are.
        to: the folder.

    Attributes:
        missing: digests that weren't there, with a device that should have sent each.
        damaged: likewise of files that held something else, or more than may be.
    """

    def __init__(self, telemetry: Telemetry, to: Path) -> None:
        self._telemetry, self._to = telemetry, to
        beside = to.absolute().parent.glob(f"*/{MANIFEST}")
        self._neighbours = [found.parent for found in sorted(beside)]
        self._whole: set[str] = set()
        self._new: list[Path] = []
        self.missing: dict[str, str] = {}
        self.damaged: dict[str, str] = {}

    def fetch(self, digest: str, devices: Iterable[str]) -> bool:
        """Have a file in the folder; False where no device's copy is whole.

        Raises:
            StorageFullError: no room; what was fetched stays.
        """
        if digest in self._whole:
            return True
        if digest in self.missing or digest in self.damaged:
            return False
        target = self._to / blob_path(digest)
        if _holds(target, digest) or self._linked(target, digest):
            self._whole.add(digest)
            return True
        for device in devices:
            try:
                data = self._telemetry.sample(device, digest)
            except NotFoundError:
                self.missing.setdefault(digest, device)
                continue
            except (IntegrityError, LimitExceededError):
                self.damaged.setdefault(digest, device)
                continue
            with translate_full(target):
                target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, data)
            self._whole.add(digest)
            break
        if digest in self._whole or digest in self.damaged:
            self.missing.pop(digest, None)
        if digest in self._whole:
            self.damaged.pop(digest, None)
        return digest in self._whole

    def _linked(self, target: Path, digest: str) -> bool:
        if target.exists():
            target.unlink()  # a damaged one
        else:
            self._new.append(target)
        for neighbour in self._neighbours:
            if _holds(neighbour / blob_path(digest), digest):
                place(neighbour / blob_path(digest), target)
                return True
        return False

    def take_back(self) -> None:
        """Remove what this call brought into a folder that is another dataset's.

        In a folder that is none's yet it stays, and so does what the dataset there names: another
        call goes on from it.
        """
        if not (self._to / MANIFEST).exists():
            return
        named = _named_in(self._to)
        for path in self._new:
            if path.name not in named:
                path.unlink(missing_ok=True)

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove other files from the folder, such as a call left that was interrupted."""
        named = set(map(hex_of, digests))
        for path in (self._to / "blobs" / "sha256").glob("*"):
            if path.name not in named:
                path.unlink()


def _named_in(folder: Path) -> set[str]:
    """Names of the files that a dataset's samples have; none where its table can't be read."""
    try:
        rows = read_rows(folder / TABLE)
    except (DocumentError, OSError):
        return set()
    return {hex_of(digest) for row in rows for digest in row.inputs.values()}


def _holds(path: Path, digest: str) -> bool:
    try:
        return path.is_file() and not path.is_symlink() and digest_of_file(path)[0] == digest
    except OSError:
        return False


def answers_in(
    telemetry: Telemetry, device: str, outputs: Mapping[str, str]
) -> tuple[OutputSummary, ...]:
    """Best class and score of captured outputs, for events that don't tell them.

    Outputs that are gone, damaged or hold no scores tell nothing.
    """
    found = []
    for name, digest in sorted(outputs.items()):
        try:
            data = telemetry.sample(device, digest, max_bytes=MAX_OUTPUT_BYTES)
        except (NotFoundError, IntegrityError, LimitExceededError):
            continue
        summary = _scores_in(name, data)
        if summary is not None:
            found.append(summary)
    return tuple(found)


def _scores_in(name: str, data: bytes) -> OutputSummary | None:
    np = needs("numpy")
    try:
        array = read_npy(data)
    except InvalidInputError:
        return None
    if array.dtype.kind != "f" or array.ndim < 1 or array.shape[-1] < 2 or not array.size:
        return None
    rows = array.reshape(-1, array.shape[-1]).astype(np.float64)
    tops = rows.argmax(axis=-1).tolist()
    highest = [float(row[top]) for row, top in zip(rows, tops, strict=True)]
    scores = tuple(score if math.isfinite(score) else None for score in highest)
    return OutputSummary(name=name, shape=array.shape, top=tuple(tops), score=scores)
