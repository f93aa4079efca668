"""Keeps what ONNX Runtime makes of a model's graph, so that the next start needn't make it again.

Optimizing resnet50's graph takes most of its load. The optimized graph is kept with its weights in
a file beside it, which ONNX Runtime maps: loading reads next to nothing, and processes share it.

Rules kept here:

- A graph is optimized for one processor and one ONNX Runtime; the key says for which, and for which
  bytes of the model. What a key doesn't hold is never loaded for it.
- A graph appears whole or not at all: it is written aside and renamed.
- A file that isn't as it was written (size, times, inode) counts as damaged, and one that can't be
  loaded, too. Damaged ones are removed and made anew. A cache that can't be written is no error.
- A graph is as good as code: the folder must be this user's, and nobody else may write it.
- No more than `MAX_BYTES`, the least recently used go first.
- A model that lies as it lay when it was last read isn't read again: a change moves its change
  time, which nobody can set back. One that changed within `SETTLED_S` may yet change unseen.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import mmap
import os
import platform
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import StorageFullError
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.store.durable import sync_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

FOLDER = "optimized"
GRAPH = "model.onnx"
WEIGHTS = "weights.bin"
MAX_BYTES = 4 << 30
MAX_NOTES = 1024  # models whose digests are remembered
SETTLED_S = 2.0
MIN_MODEL_BYTES = 1 << 16  # smaller graphs are optimized sooner than the cache is searched
_LOCATION = b"location"  # key of TensorProto.external_data (onnx.proto3): weights in other files
_RECORD = "record.json"
_NOTES = "notes"
_LEFT_OVER_S = 24 * 3600.0  # after which nobody writes on what was begun
_OURS = re.compile(r"[0-9a-f]{64}")

Seen = tuple[int, int, int, int, int]
"""Device, inode, size, and nanoseconds of the last change of content and of anything."""


class _Record(msgspec.Struct, frozen=True):
    """What lies in a folder; no files for a model whose graph can't be kept."""

    files: dict[str, Seen]


class OptimizedModels:
    """The graphs of one cache folder; several processes may use it.

    Args:
        root: of all that engines keep.
        machine: what graphs are optimized for; by default this processor and system.
        max_bytes: of all graphs.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        root: Path,
        *,
        machine: str | None = None,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = root / FOLDER
        self._machine = machine or this_machine()
        self._max_bytes = max_bytes
        self._clock = clock

    def open(
        self,
        entry: Path,
        onnxruntime: str,
        load: Callable[[Path], Any],
        make: Callable[[Path | None], Any],
        same: Callable[[Any, Any], bool],
    ) -> Any:  # noqa: ANN401 - sessions have no types
        """The session of a model, from the cache where that is possible.

        Args:
            entry: the model file.
            onnxruntime: its version.
            load: opens an optimized graph as it is; may raise anything.
            make: opens the model, and writes the optimized graph to this path, if there is one.
            same: whether two sessions have the same inputs and outputs. Some old models lose the
                values that they give their inputs when they are written.

        Raises:
            Exception: what ``make`` raised.
        """
        digest = self._digest(entry) if self._is_ours() else None
        if digest is None:
            return make(None)
        parts = (digest, onnxruntime, self._machine)
        folder = self._root / hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
        record = _record_of(folder)
        if record is not None:
            if not record.files:
                return make(None)
            try:
                session = load(folder / GRAPH)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must be made anew
                _log.warning("the optimized graph of %s can't be loaded: %s", entry.name, error)
            else:
                with contextlib.suppress(OSError):
                    os.utime(folder)
                return session
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=".new-", dir=self._root))
        except OSError as error:
            _log.warning("optimized graphs can't be kept: %s", error)
            return make(None)
        try:
            session = make(work / GRAPH)
            try:
                keep = same(load(work / GRAPH), session)
            except Exception as error:  # noqa: BLE001 - then the graph isn't of use
                _log.info("the optimized graph of %s is of no use: %s", entry.name, error)
                keep = False
            self._keep(work, folder, keep=keep)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return session

    def _keep(self, work: Path, folder: Path, *, keep: bool) -> None:
        try:
            for path in tuple(work.iterdir()):
                if keep:
                    _sync(path)
                else:
                    path.unlink()
            record = _Record({path.name: _seen(path) for path in work.iterdir()})
            write_durably(work / _RECORD, msgspec.json.encode(record))
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
            sync_folder(self._root)
            self._evict(folder)
        except (OSError, StorageFullError) as error:  # or another process was faster
            _log.warning("an optimized graph wasn't kept: %s", error)

    def _evict(self, newest: Path) -> None:
        held = []
        for folder in self._root.iterdir():
            with contextlib.suppress(OSError):
                changed = folder.stat().st_mtime
                if _OURS.fullmatch(folder.name):
                    size = sum(path.stat().st_size for path in folder.iterdir())
                    held.append((folder == newest, changed, size, folder))
                elif folder.name != _NOTES and changed < self._clock() - _LEFT_OVER_S:
                    shutil.rmtree(folder, ignore_errors=True)
        left = sum(size for _, _, size, _ in held)
        for _, _, size, folder in sorted(held):  # the newest last, though it goes too if too large
            if left <= self._max_bytes:
                return
            shutil.rmtree(folder, ignore_errors=True)  # its files stay for who has mapped them
            left -= size

    def _is_ours(self) -> bool:
        try:
            status = self._root.stat()
        except OSError:
            return True  # it isn't there yet; what else is wrong with it shows when it is made
        if status.st_mode & 0o022 or status.st_uid != getattr(os, "geteuid", lambda: 0)():
            _log.warning("optimized graphs aren't kept: others may write %s", self._root)
            return False
        return True

    def _digest(self, entry: Path) -> str | None:
        """Of the model's bytes; None for a model that isn't kept."""
        status = entry.stat()
        if status.st_size < MIN_MODEL_BYTES:
            return None
        name = hashlib.sha256(msgspec.json.encode(_seen(entry))).hexdigest()
        note = self._root / _NOTES / name
        with contextlib.suppress(OSError):
            known = note.read_text()
            if _OURS.fullmatch(known):
                return known
        with entry.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            # Weights in other files aren't in the digest; they are mapped as they are, too.
            if content.find(_LOCATION) >= 0:
                return None
            digest = hashlib.sha256(content).hexdigest()
        if self._clock() - status.st_ctime >= SETTLED_S:
            with contextlib.suppress(OSError, StorageFullError):
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                note.parent.mkdir(exist_ok=True)
                if sum(1 for _ in note.parent.iterdir()) >= MAX_NOTES:
                    shutil.rmtree(note.parent, ignore_errors=True)
                    note.parent.mkdir(exist_ok=True)
                write_durably(note, digest.encode())
        return digest


def this_machine() -> str:
    """What graphs are optimized for, in words: system, architecture, and what the processor can."""
    told = ""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(errors="replace")
        found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
        told = " ".join(sorted(found[1].split())) if found else ""
    return f"{platform.system()} {platform.machine()} {told or platform.processor()}"


def _record_of(folder: Path) -> _Record | None:
    """What lies in a folder; None where it isn't whole any more."""
    try:
        record = decoder(_Record).decode((folder / _RECORD).read_bytes())
        whole = all(_seen(folder / name) == seen for name, seen in record.files.items())
    except (OSError, *UNREADABLE):
        return None
    return record if whole else None


def _seen(path: Path) -> Seen:
    status = path.stat()
    times = status.st_mtime_ns, status.st_ctime_ns
    return (status.st_dev, status.st_ino, status.st_size, *times)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
