"""A labelling round trip through Label Studio: tasks out, people's choices in.

Formats, as Label Studio documents them and its converter writes them:

- tasks with pre-annotations: https://labelstud.io/guide/predictions
- the labelling interface: https://labelstud.io/tags/choices
- the exports JSON, JSON_MIN and CSV: https://labelstud.io/guide/export and, for the columns,
  ``label_studio_sdk/converter`` in https://github.com/HumanSignal/label-studio-sdk
- files that Label Studio serves itself: https://labelstud.io/guide/storage (local storage)

A task carries the digest of its sample, so that whatever comes back finds its sample again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, get_args
from xml.sax.saxutils import quoteattr

from edgefleet.analysis.exporting import is_like_image, pictures, save_png
from edgefleet.analysis.labelling import MAX_LABEL, Opinion, Prefer, conflicts, labels_in, merge
from edgefleet.errors import DocumentError, InvalidInputError
from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.files import read_small, translate_full, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgefleet.analysis.dataset_folder import Held
    from edgefleet.analysis.dataset_rows import Row

CHOICE = "class"  # name of the control that people choose with
SHOWN = {"Image": "image", "Text": "text"}
MAX_EXPORT_BYTES = 512 << 20
_NUMBERS_SHOWN = 256
_HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


class Imported(NamedTuple):
    """What an import brought.

    Attributes:
        read: choices that people made.
        added: of these, that weren't known before.
        elsewhere: that are of samples which this dataset doesn't hold; they are kept all the same.
        skipped: tasks that were cancelled, had no choice or several, or name no sample.
        conflicts: labels of samples that were given different ones, now or before.
        prefer: what holds of those.
    """

    read: int
    added: int
    elsewhere: int
    skipped: int
    conflicts: dict[str, tuple[str, ...]]
    prefer: Prefer

    def __str__(self) -> str:
        parts = [f"{self.read} labels read, {self.added} new"]
        if self.elsewhere:
            parts.append(f"{self.elsewhere} of samples that this dataset doesn't hold")
        if self.skipped:
            parts.append(f"{self.skipped} tasks without one clear choice")
        if self.conflicts:
            parts.append(f"{len(self.conflicts)} samples in dispute, the {self.prefer} holds")
        return "; ".join(parts)


def export_label_studio(
    dataset: Held,
    to: Path,
    *,
    name: str | None = None,
    address: str | None = None,
    shape: Sequence[int] | None = None,
) -> Path:
    """See `Dataset.export_label_studio`."""
    if not len(dataset):
        raise InvalidInputError("there are no samples to label", cure="make a larger dataset")
    as_image = is_like_image(dataset.array(dataset.rows[0], name), shape)
    with translate_full(to):
        (to / "images" if as_image else to).mkdir(parents=True, exist_ok=True)
    if as_image:
        start = f"/data/local-files/?d={to.name}/images/" if address is None else address
        shown = {}
        for row, picture in pictures(dataset, name, shape):
            save_png(picture, to / "images" / f"{hex_of(row.sample)}.png")
            shown[row.sample] = f"{start}{hex_of(row.sample)}.png"
    else:
        shown = {row.sample: _as_text(dataset, row, name) for row in dataset}
    tag = "Image" if as_image else "Text"
    tasks = [_task(row, tag, shown[row.sample]) for row in dataset]
    write_whole(to / "config.xml", _config(dataset, tag).encode())
    path = to / "tasks.json"
    write_whole(path, json.dumps(tasks, indent=1, ensure_ascii=False).encode())
    return path


def _as_text(dataset: Held, row: Row, name: str | None) -> str:
    array = dataset.array(row, name)
    numbers = array.ravel()[:_NUMBERS_SHOWN].tolist()
    more = " …" if array.size > _NUMBERS_SHOWN else ""
    return f"{array.dtype}{list(array.shape)}: {json.dumps(numbers)}{more}"


def _task(row: Row, tag: str, shown: str) -> dict[str, Any]:
    task: dict[str, Any] = {
        "data": {
            SHOWN[tag]: shown,
            "sample": row.sample,
            "device": row.device,
            "captured_at": row.time.isoformat(),
            "model_version": row.version,
        }
    }
    if row.predicted:
        prediction: dict[str, Any] = {
            "model_version": f"{row.model}:{row.version}",
            "result": [
                {
                    "from_name": CHOICE,
                    "to_name": SHOWN[tag],
                    "type": "choices",
                    "value": {"choices": [row.predicted]},
                }
            ],
        }
        if row.score is not None:
            prediction["score"] = row.score
        task["predictions"] = [prediction]
    return task


def _config(dataset: Held, tag: str) -> str:
    known = {row.known_class for row in dataset} - {""}
    classes = [*dataset.manifest.classes, *sorted(known - set(dataset.manifest.classes))]
    choices = "".join(f"    <Choice value={quoteattr(one)}/>\n" for one in classes)
    shown = SHOWN[tag]
    return (
        f'<View>\n  <{tag} name="{shown}" value="${shown}"/>\n'
        f'  <Choices name="{CHOICE}" toName="{shown}" choice="single" showInline="true">\n'
        f"{choices}  </Choices>\n</View>\n"
    )


def import_labels(
    dataset: Held, exported: Path, *, prefer: Prefer = "latest", by: str | None = None
) -> Imported:
    """See `Dataset.import_labels`."""
    if prefer not in get_args(Prefer):
        raise InvalidInputError(f"no {prefer!r} to prefer", cure="use latest or most")
    try:
        data = read_small(exported, MAX_EXPORT_BYTES)
        changed = datetime.fromtimestamp(exported.stat().st_mtime, UTC)
    except FileNotFoundError as error:
        msg = f"no export at {exported}"
        raise InvalidInputError(
            msg, cure="export from Label Studio as JSON, JSON_MIN or CSV"
        ) from error
    found, skipped = [], 0
    for record in _records(data, str(exported)):
        opinion = _opinion(record, at=changed, by=by)
        if opinion is None:
            skipped += 1
        else:
            found.append(opinion)
    added = merge(dataset.path, dataset.model, found, prefer=prefer)
    ours = {row.sample for row in dataset}
    disputed = conflicts(labels_in(dataset.path, dataset.model).opinions)
    return Imported(
        read=len(found),
        added=added,
        elsewhere=sum(one.sample not in ours for one in found),
        skipped=skipped,
        conflicts={sample: held for sample, held in disputed.items() if sample in ours},
        prefer=prefer,
    )


class _Record(NamedTuple):
    """One annotation, whatever the format: what it is of, what was chosen, by whom, when."""

    data: dict[str, Any]
    choice: object
    by: object
    at: object


def _records(data: bytes, where: str) -> Iterator[_Record]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{where} is no text: {error.reason} at byte {error.start}") from error
    if text.lstrip()[:1] in {"[", "{"}:
        try:
            tasks = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"{where} is no JSON: {error}") from error
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            msg = f"{where} is no list of tasks"
            raise DocumentError(msg, cure="export from Label Studio as JSON, JSON_MIN or CSV")
        for task in tasks:
            yield from _of_task(task) if "annotations" in task else (_of_row(task),)
        return
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    try:
        reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
        if CHOICE not in (reader.fieldnames or ()):
            msg = f"{where} has no column {CHOICE!r}"
            raise DocumentError(msg, cure="label with the config.xml that was exported")
        for row in reader:
            yield _of_row(row)
    except csv.Error as error:
        raise DocumentError(f"{where} is no CSV: {error}") from error


def _of_task(task: dict[str, Any]) -> Iterator[_Record]:
    data = task.get("data")
    annotations = task["annotations"]
    # A task that nobody has annotated yet is counted as one without a choice.
    for one in (annotations if isinstance(annotations, list) else ()) or (None,):
        told = one if isinstance(one, dict) and not one.get("was_cancelled") else {}
        yield _Record(
            data=data if isinstance(data, dict) else {},
            choice=_chosen(told.get("result")),
            by=told.get("completed_by"),
            at=told.get("updated_at") or told.get("created_at"),
        )


def _chosen(results: object) -> object:
    found = [
        result["value"].get("choices")
        for result in (results if isinstance(results, list) else ())
        if isinstance(result, dict)
        and result.get("from_name") == CHOICE
        and isinstance(result.get("value"), dict)
    ]
    return found[0] if len(found) == 1 else None


def _of_row(row: dict[str, Any]) -> _Record:
    """A row of JSON_MIN, CSV or TSV: data, choice and who, beside each other."""
    return _Record(
        data=row,
        choice=row.get(CHOICE),
        by=row.get("annotator"),
        at=row.get("updated_at") or row.get("created_at"),
    )


def _opinion(record: _Record, *, at: datetime, by: str | None) -> Opinion | None:
    """What a record says; None where it says nothing clear."""
    sample, label = _sample_of(record.data), record.choice
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if sample is None or not isinstance(label, str) or not 0 < len(label) <= MAX_LABEL:
        return None
    if label.startswith("{"):  # several choices, as the converter writes them
        return None
    who = record.by
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return Opinion(
        sample=sample,
        at=_moment(record.at) or at,
        by=by or ("" if who is None else str(who)),
        label=label,
    )


def _sample_of(data: dict[str, Any]) -> str | None:
    """The sample that a task names: by its digest, or by the name of its picture."""
    for text in (data.get("sample"), data.get(SHOWN["Image"])):
        found = _HEX.findall(text) if isinstance(text, str) else []
        if found:
            return f"sha256:{found[-1]}"
    return None


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
