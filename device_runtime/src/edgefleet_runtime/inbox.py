"""The inbox of a device that sleeps: requests that gathered as files, predicted over in one go.

Rules kept here:

- A file goes only when its event is safe in the spool. Whatever moment the process ends at, no
  prediction is lost, and none counts twice: the event's id is made of the file.
- What can't be read, or what the model refuses, is set aside and told; what no model here answers
  waits.
- Nothing outside the folder is touched: links aren't followed, and names come from listing it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet.protocol.event import HealthEvent, Prediction, new_event
from edgefleet.protocol.inference import decode_request
from edgefleet.protocol.tensors import dtype_of
from edgefleet_runtime.faults import point
from edgefleet_runtime.rules.filters import Filters
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.summary import summarize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.protocol.event import Event, EventData
    from edgefleet.protocol.policy import TelemetryPolicy
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

_log = logging.getLogger(__name__)

UNREADABLE = "unreadable"
PARTIAL = ".partial"
"""A file whose name ends so, or begins with a dot, is still being written."""
SLICE = 64  # files between two times that events are made safe
MAX_NAMED = 5  # files in a health event


class Gathered(NamedTuple):
    """What became of an inbox.

    Attributes:
        predicted: files that were answered, and are gone.
        unreadable: files that were set aside.
        left: files that wait.
    """

    predicted: int
    unreadable: int
    left: int


class Inbox:
    """A folder of requests: ``MODEL/NAME`` or ``MODEL.VERSION/NAME``.

    A name ends with ``.json``: a request of the Open Inference Protocol v2 as it is posted; or with
    ``.npy``: the only input of the model, in numpy's format, with or without the first axis.

    Args:
        root: the folder.
        table: the models that answer.
        policy: what is recorded.
        tell: takes health events.
        keep: makes events safe; returns which of them are.
        each: called after each answer.
        max_bytes: of one file.
    """

    def __init__(
        self,
        root: Path,
        table: ModelTable,
        policy: TelemetryPolicy,
        *,
        tell: Callable[[EventData], object],
        keep: Callable[[Sequence[Event]], Sequence[bool]],
        each: Callable[[], object] = lambda: None,
        max_bytes: int = Limits().max_body_bytes,
    ) -> None:
        self._root = root
        self._table = table
        self._policy = policy
        self._tell = tell
        self._keep = keep
        self._each = each
        self._max_bytes = max_bytes
        self._filters = Filters(policy, tell)
        self._unreadable: list[str] = []

    def work(self, *, until: Callable[[], bool] = lambda: False) -> Gathered:
        """Answer what has gathered, in order of the files' times.

        Args:
            until: tells when time is up; what is left then waits.
        """
        files = sorted(self._files(), key=lambda one: (one.mtime_ns, one.path))
        predicted = left = 0
        for start in range(0, len(files), SLICE):
            if until():
                left += len(files) - start
                break
            done, waiting = self._slice(files[start : start + SLICE])
            predicted += done
            left += waiting
        count = len(self._unreadable)
        if count:
            named = "; ".join(self._unreadable[:MAX_NAMED])
            message = f"{count} files of the inbox were set aside: {named}"[:1024]
            self._tell(HealthEvent(what="inbox-unreadable", message=message))
        return Gathered(predicted, count, left)

    def _slice(self, files: Sequence[_File]) -> tuple[int, int]:
        """Answer some files; returns how many were, and how many wait."""
        answered: list[tuple[_File, Event | None]] = []
        waiting = 0
        for file in files:
            try:
                answered.append((file, self._answer(file)))
                self._each()
            except NotFoundError as error:
                _log.warning("%s waits: %s", file.name, error.message)
                waiting += 1
            except Exception as error:  # noqa: BLE001 - engines raise anything
                said = error.message if isinstance(error, EdgeFleetError) else repr(error)
                self._set_aside(file, said)
        point("inbox.predicted")
        events = [event for _, event in answered if event is not None]
        safe = dict(zip([e.id for e in events], self._keep(events), strict=True))
        point("inbox.kept")
        for file, event in answered:
            if event is not None and not safe[event.id]:
                waiting += 1
                continue
            file.path.unlink(missing_ok=True)
            point("inbox.removed")
        return len(answered) - sum(not kept for kept in safe.values()), waiting

    def _answer(self, file: _File) -> Event | None:
        """The event of a file's answer; None where the policy wants none.

        Raises:
            NotFoundError: no model of that name and version is served.
            EdgeFleetError: the file can't be read, or the model refuses it.
        """
        name, version = self._model_of(file.folder)
        data = file.read(self._max_bytes)
        with self._table.lease(name, version) as served:
            inputs, wanted = _request(file, data, served)
            outputs, run_us = served.infer(inputs, wanted)
            prediction = Prediction(
                model=served.name,
                model_version=served.version,
                bundle=served.bundle,
                variant=served.variant,
                outputs=summarize(outputs, self._policy.output_values),
                latency_us=run_us,
                request=file.name,
            )
        identity = hashlib.sha256(f"{file.name}\0{file.mtime_ns}\0".encode() + data).hexdigest()
        # By the file, not by counting: after a crash the same files are recorded.
        share = int(identity[:8], 16) / (1 << 32)
        if share >= self._policy.prediction_fraction or not self._filters.passes(prediction):
            return None
        return new_event(prediction, identity=identity)

    def _model_of(self, folder: str) -> tuple[str, str | None]:
        """Name and version that a folder's name means.

        Raises:
            NotFoundError: nothing like it is served.
        """
        for served in self._table:
            if folder == served.name:
                return served.name, None
            if folder == f"{served.name}.{served.version}":
                return served.name, served.version
        raise NotFoundError(f"model {folder!r} is not served here")

    def _files(self) -> Iterator[_File]:
        for folder in _entries(self._root):
            if not folder.is_dir(follow_symlinks=False) or folder.name == UNREADABLE:
                continue
            for entry in _entries(folder.path):
                if entry.is_file(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    yield _File(self._root / folder.name / entry.name, about.st_mtime_ns)

    def _set_aside(self, file: _File, why: str) -> None:
        _log.warning("%s can't be answered: %s", file.name, why)
        self._unreadable.append(f"{file.name}: {why}"[:200])
        target = self._root / UNREADABLE / file.folder
        try:
            target.mkdir(parents=True, exist_ok=True)
            # Another of the same name may be there already.
            file.path.replace(target / f"{file.mtime_ns:x}-{file.path.name}")
        except OSError as error:
            _log.warning("%s can't be set aside: %s", file.name, error)


class _File(NamedTuple):
    """A file of the inbox."""

    path: Path
    mtime_ns: int

    @property
    def folder(self) -> str:
        return self.path.parent.name

    @property
    def name(self) -> str:
        # Whatever a camera calls its files.
        return f"{self.folder}/{self.path.name}".encode("utf-8", "backslashreplace").decode()

    def read(self, most: int) -> bytes:
        """Its content.

        Raises:
            LimitExceededError: it is larger than allowed.
            OSError: it can't be read.
        """
        handle = os.open(self.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InvalidInputError("it is no file")
            data = stream.read(most + 1)
        if len(data) > most:
            raise LimitExceededError(f"it has more than {most} bytes")
        return data


def _entries(folder: str | os.PathLike[str]) -> Iterable[os.DirEntry[str]]:
    """What is in a folder and not still being written."""
    try:
        with os.scandir(folder) as found:
            return [e for e in found if e.name[0] != "." and not e.name.endswith(PARTIAL)]
    except FileNotFoundError:
        return []


def _request(
    file: _File, data: bytes, served: ServedModel
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...] | None]:
    """Inputs by name, and the outputs asked for.

    Raises:
        EdgeFleetError: it is malformed, or of another kind.
        ValueError: likewise.
    """
    if file.path.suffix == ".json":
        asked = decode_request(data)
        return dict(asked.inputs), tuple(asked.outputs or ()) or None
    if file.path.suffix != ".npy":
        raise InvalidInputError("it is neither .json nor .npy")
    specs = served.model.interface.inputs
    if len(specs) != 1:
        raise InvalidInputError(f"the model has {len(specs)} inputs", cure="write it as .json")
    array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    (spec,) = specs
    wanted = dtype_of(spec.datatype)
    if array.dtype != wanted:
        array = array.astype(wanted, casting="same_kind")
    if array.ndim == len(spec.shape) - 1:
        array = array[None]
    return {spec.name: array}, None
