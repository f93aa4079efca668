"""Making a dataset: read what devices captured, choose, fetch the files, write the folder.

Nothing is left out silently: segments that can't be read, files that aren't there and files that
hold something else are counted, named in the provenance, and told in a warning.
"""

from __future__ import annotations

import warnings
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import msgspec

from edgefleet.analysis import dataset_records as records
from edgefleet.analysis.dataset_choice import choose, distinct
from edgefleet.analysis.dataset_rows import row_of
from edgefleet.analysis.dataset_writing import check_free, write
from edgefleet.analysis.sample_files import SampleFiles, answers_in
from edgefleet.errors import DocumentError, NotFoundError
from edgefleet.protocol.event import Sample, SketchWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from edgefleet.analysis.dataset_records import Choice, Manifest
    from edgefleet.analysis.dataset_rows import Row
    from edgefleet.interfaces.telemetry import Telemetry
    from edgefleet.protocol.event import Event

_NONE_FITS = (
    "widen the time, take strategy='all', or capture more; what was captured a minute ago may "
    "still be on its device: see segment_max_age_s in its telemetry policy"
)


class Origins(Protocol):
    """What the fleet knows beside its telemetry."""

    def bundle(self, model: str, version: str) -> str:
        """Digest of the bundle that a version is; empty where it is gone."""

    def classes(self, bundle: str) -> tuple[str, ...]:
        """Class names by index of a bundle; none where it names none or is gone."""

    def release(self, device: str, bundle: str, at: datetime) -> str:
        """Digest of the release that gave a device that bundle then; empty where none is known."""


class Maker:
    """Makes one dataset.

    Args:
        telemetry: where samples are read from.
        origins: what else is known of them.
        model: whose samples.
        choice: which of them.
        labels: class by sample.
        device: only this one's; None for every one's.
        tell: called with what is going on.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        origins: Origins,
        *,
        model: str,
        choice: Choice,
        labels: Mapping[str, str],
        device: str | None = None,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._telemetry, self._origins = telemetry, origins
        self._model, self._choice, self._labels = model, choice, labels
        self._device, self._tell = device, tell
        self._counts: Counter[str] = Counter()
        self._holders: dict[str, dict[str, None]] = {}  # devices by file, in the order of events
        self._segments: set[str] = set()
        self._unreadable: dict[str, str] = {}

    def make(self, to: Path, numbered: Callable[[Manifest], int | None]) -> None:
        """Fetch and write it; see `Fleet.dataset` for what it raises."""
        check_free(to)
        files = SampleFiles(self._telemetry, to)
        try:
            rows = self._filled(to, files, numbered)
        except BaseException:  # Ctrl-C, too
            files.take_back()
            raise
        files.keep_only(digest for row in rows for digest in row.inputs.values())

    def _filled(
        self, to: Path, files: SampleFiles, numbered: Callable[[Manifest], int | None]
    ) -> list[Row]:
        """Have the files and then the rest in the folder; the samples that it holds."""
        pool = [self._named(row) for row in distinct(self._captured())]
        rows, lost = self._fetched(pool, files)
        found = self._found(pool, rows, files, lost)
        story = _story(found)
        if not rows:
            msg = f"no sample of {self._model!r} fits: {story}"
            raise NotFoundError(msg, cure=_NONE_FITS)
        if found.missing or found.damaged or found.unreadable or found.malformed:
            warnings.warn(f"dataset of {self._model}: {story}", RuntimeWarning, stacklevel=5)
        write(
            to,
            model=self._model,
            rows=[self._with_release(row) for row in rows],
            classes=self._classes(rows),
            choice=self._choice,
            found=found,
            provenance=records.Provenance(
                segments=tuple(sorted(self._segments - self._unreadable.keys())),
                unreadable=dict(sorted(self._unreadable.items())),
                missing=dict(sorted(files.missing.items())),
                damaged=dict(sorted(files.damaged.items())),
            ),
            numbered=numbered,
        )
        return rows

    # Reading

    def _events(self, kind: str) -> Iterator[Event]:
        choice = self._choice
        query = self._telemetry.query(
            kind=kind,
            model=self._model,
            device=self._device,
            since=choice.since if kind == "sample" else None,
            until=choice.until if kind == "sample" else None,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # told once, at the end
            yield from query
        self._segments.update(query.segments)
        self._unreadable.update(query.unreadable)

    def _captured(self) -> list[Row]:
        rows = []
        for event in self._events("sample"):
            self._counts["captured"] += 1
            if self._counts["captured"] % 100 == 0:
                self._tell(f"{self._counts['captured']} samples read")
            try:
                sample = event.payload()
            except DocumentError:
                self._counts["malformed"] += 1
                continue
            assert isinstance(sample, Sample)  # noqa: S101 - what its kind means
            if not sample.inputs:
                self._counts["without_inputs"] += 1
                continue
            for digest in sample.inputs.values():
                self._holders.setdefault(digest, {})[event.device] = None
            answers = sample.answers or answers_in(self._telemetry, event.device, sample.outputs)
            rows.append(row_of(event, sample, answers=answers))
        return rows

    def _drifted(self) -> Callable[[Row], bool]:
        """Whether a device had told of a window around a sample that the model's data moved."""
        spans: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
        for event in self._events("sketch"):
            try:
                window = event.payload()
            except DocumentError:
                self._counts["malformed"] += 1
                continue
            if isinstance(window, SketchWindow) and window.verdict == "moved":
                key = (event.device, window.model_version)
                spans.setdefault(key, []).append((window.start, window.end))

        def drifted(row: Row) -> bool:
            held = spans.get((row.device, row.version), ())
            return any(start <= row.time < end for start, end in held)

        return drifted

    # Choosing

    def _fetched(self, pool: Sequence[Row], files: SampleFiles) -> tuple[list[Row], int]:
        """The samples chosen, their files there; others stand in for those whose aren't."""
        drifted = self._drifted() if self._choice.strategy == "drifted" else lambda _: False
        lost: set[str] = set()
        while True:
            left = [row for row in pool if row.sample not in lost]
            chosen = choose(left, self._choice, drifted=drifted)
            gone = set()
            for number, row in enumerate(chosen):
                self._tell(f"fetching {number + 1} of {len(chosen)} samples")
                # Each file is asked for, so that all that is missing is told at once.
                there = [
                    files.fetch(digest, self._holders[digest]) for digest in row.inputs.values()
                ]
                if not all(there):
                    gone.add(row.sample)
            if not gone:
                return chosen, len(lost)
            lost |= gone

    def _found(
        self, pool: Sequence[Row], rows: Sequence[Row], files: SampleFiles, lost: int
    ) -> records.Found:
        return records.Found(
            **self._counts,
            repeated=sum(row.captured - 1 for row in pool),
            unchosen=len(pool) - len(rows) - lost,
            lost=lost,
            missing=len(files.missing),
            damaged=len(files.damaged),
            unreadable=len(self._unreadable),
        )

    # What others know

    def _named(self, row: Row) -> Row:
        """The row with its bundle and its label, and its class by the bundle's name for it."""
        bundle = row.bundle or self._origins.bundle(row.model, row.version)
        names = self._origins.classes(bundle) if bundle and row.predicted else ()
        index = int(row.predicted) if row.predicted else -1
        return msgspec.structs.replace(
            row,
            bundle=bundle,
            predicted=names[index] if 0 <= index < len(names) else row.predicted,
            label=self._labels.get(row.sample, ""),
        )

    def _with_release(self, row: Row) -> Row:
        if not row.bundle:
            return row
        release = self._origins.release(row.device, row.bundle, row.time)
        return msgspec.structs.replace(row, release=release)

    def _classes(self, rows: Sequence[Row]) -> tuple[str, ...]:
        for row in reversed(rows):
            if row.bundle and (names := self._origins.classes(row.bundle)):
                return names
        return ()


def _story(found: records.Found) -> str:
    """What became of all that was captured, in a phrase."""
    parts = {
        "malformed": found.malformed,
        "without inputs": found.without_inputs,
        "captured before": found.repeated,
        "not chosen": found.unchosen,
        "left out for their files": found.lost,
        "files missing": found.missing,
        "files damaged": found.damaged,
        "segments unreadable": found.unreadable,
    }
    told = "; ".join(f"{count} {what}" for what, count in parts.items() if count)
    return f"{found.captured} captured" + (f"; {told}" if told else "")
