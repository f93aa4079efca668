"""A folder of results by key: bounded, checked, shared by processes, never trusted blindly.

Rules kept here:

- An entry is a folder that appears whole, by one rename, or not at all; what a killed process left
  under a temporary name is swept by the next one that writes.
- What is read is held against the digests written with it. An entry that doesn't fit is removed and
  its result made anew.
- Writers take turns by a lock; readers take none, and copy what they use, so that it may go.
- Entries that were not used for longest go first when the bytes exceed the bound.
- Nothing here fails its caller: without room, or without permission, there is no cache.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.errors import EdgeFleetError, IntegrityError, InvalidInputError
from edgefleet.protocol.digest import Digest, digest_of, digest_of_file
from edgefleet.protocol.names import check_path
from edgefleet.protocol.typed import decoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

MAX_BYTES = 2 << 30
MAX_ENTRY_BYTES = 16 << 20  # of an entry's own record, beside its files
LOCK_TIMEOUT_S = 60.0

_ENTRY = "entry.json"
_LOCK = ".lock"
_TEMPORARY = ".tmp-"
_LAYOUT = "v1"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: str
    digest: Digest
    size: int


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: Digest
    value: Any
    files: tuple[_File, ...] = ()


def default_folder() -> Path | None:
    """The user's folder for these results, by the XDG base directory specification.

    https://specifications.freedesktop.org/basedir-spec/: a relative path is to be ignored. None
    where the user has no home.
    """
    asked = os.environ.get("XDG_CACHE_HOME", "")
    try:
        home = Path(asked) if Path(asked).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "edgefleet" / "optimize"


class Cache:
    """Results in a folder.

    Args:
        folder: made when the first result is kept.
        max_bytes: what all entries together may take.

    Raises:
        InvalidInputError: there is something else than a folder.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        if folder.exists() and not folder.is_dir():
            msg = f"the cache {folder} is no folder"
            raise InvalidInputError(msg, cure="name a folder, or cache=False")
        self._root = folder.absolute() / _LAYOUT
        self._max_bytes = max_bytes
        self._usable = True

    def read(self, kind: str, key: Mapping[str, object], *, to: Path | None = None) -> Any:  # noqa: ANN401 - what was written
        """The value kept under a key, its files copied below ``to``; None where there is none.

        Args:
            kind: of value.
            key: everything that decides the value, as plain data.
            to: a folder that doesn't exist yet; left out where the value has no files.
        """
        digest = _digest(kind, key)
        entry = self._root / _name(kind, digest)
        try:
            self._check_owner()
            record = _record(entry / _ENTRY, digest)
            if to is not None:
                _copy(entry, record.files, to)
            os.utime(entry / _ENTRY)
        except (OSError, EdgeFleetError, msgspec.MsgspecError) as error:
            if to is not None:
                shutil.rmtree(to, ignore_errors=True)
            if not isinstance(error, FileNotFoundError):
                log.warning("a result kept in %s cannot be used: %s", entry, error)
            if not isinstance(error, OSError):  # it is the entry's fault
                self._forget(entry)
            return None
        return record.value

    def write(
        self,
        kind: str,
        key: Mapping[str, object],
        value: object,
        files: Mapping[str, Path] | None = None,
    ) -> None:
        """Keep a value of plain data, with copies of its files by relative path."""
        if not self._usable:
            return
        found = files or {}
        try:
            size = sum(path.stat().st_size for path in found.values())
            if size > self._max_bytes:
                return
            with self._locked():
                self._trim(self._max_bytes - size)
                self._put(kind, _digest(kind, key), value, found)
        except OSError as error:
            self._give_up(error)

    def _put(self, kind: str, digest: str, value: object, files: Mapping[str, Path]) -> None:
        place = self._root / _name(kind, digest)
        made = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self._root))
        try:
            kept = []
            for number, (path, source) in enumerate(sorted(files.items())):
                copy = made / str(number)
                shutil.copyfile(source, copy)
                kept.append(_File(path, *digest_of_file(copy)))
            data = msgspec.json.encode(_Entry(digest, value, tuple(kept)))
            (made / _ENTRY).write_bytes(digest_of(data).encode() + b"\n" + data)
            if place.exists():
                _remove(place)
            made.rename(place)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._check_owner()
        try:
            with FileLock(self._root / _LOCK, timeout=LOCK_TIMEOUT_S):
                for left in self._root.glob(f"{_TEMPORARY}*"):
                    shutil.rmtree(left, ignore_errors=True)
                yield
        except NotImplementedError as error:  # a file system without locks
            raise OSError(str(error)) from error

    def _check_owner(self) -> None:
        """Refuse a folder that anybody may write to: what lies in it decides what ships."""
        info = self._root.stat()
        own = not hasattr(os, "getuid") or info.st_uid == os.getuid()
        if not own or info.st_mode & stat.S_IWOTH:
            msg = f"{self._root} may be written by others"
            raise PermissionError(msg)

    def _trim(self, max_bytes: int) -> None:
        """Remove what was not used for longest until the rest fits."""
        found = sorted(_usage(entry) for entry in self._root.iterdir() if entry.is_dir())
        total = sum(size for _, _, size in found)
        for _, name, size in found:
            if total <= max_bytes:
                break
            _remove(self._root / name)
            total -= size

    def _forget(self, entry: Path) -> None:
        try:
            with self._locked():
                _remove(entry)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._usable = False
        log.warning("results are kept for this call only: %s", error)


def _digest(kind: str, key: Mapping[str, object]) -> str:
    return digest_of(json.dumps([kind, key], sort_keys=True).encode())


def _name(kind: str, digest: str) -> str:
    return f"{kind}-{digest.removeprefix('sha256:')}"


def _record(path: Path, key: str) -> _Entry:
    """What an entry says.

    Raises:
        IntegrityError: it was changed, or is another's.
    """
    with path.open("rb") as stream:
        text = stream.read(MAX_ENTRY_BYTES + 1)
    told, _, data = text.partition(b"\n")
    record = decoder(_Entry).decode(data) if digest_of(data).encode() == told else None
    if record is None or record.key != key:
        msg = f"{path} is not as it was written"
        raise IntegrityError(msg)
    return record


def _copy(entry: Path, files: tuple[_File, ...], to: Path) -> None:
    """Copy an entry's files, and hold the copies against their digests.

    Raises:
        IntegrityError: one was changed.
    """
    to.mkdir()
    for number, file in enumerate(files):
        target = to / check_path(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        hasher, left = hashlib.sha256(), file.size
        with (entry / str(number)).open("rb") as source, target.open("xb") as sink:
            while chunk := source.read(min(left, 1 << 20)):
                hasher.update(chunk)
                sink.write(chunk)
                left -= len(chunk)
            longer = source.read(1)
        if left or longer or "sha256:" + hasher.hexdigest() != file.digest:
            msg = f"{entry / str(number)} is not as it was written"
            raise IntegrityError(msg)


def _usage(entry: Path) -> tuple[int, str, int]:
    """When an entry was used last, its name, and its bytes; what is no entry was never used."""
    try:
        used = (entry / _ENTRY).stat().st_mtime_ns
    except OSError:
        used = 0
    return used, entry.name, sum(path.stat().st_size for path in entry.iterdir())


def _remove(entry: Path) -> None:
    """Remove an entry: out of sight first, so that none is ever seen in part."""
    hidden = entry.with_name(f"{_TEMPORARY}{entry.name}")
    try:
        entry.rename(hidden)
    except FileNotFoundError:
        return
    shutil.rmtree(hidden, ignore_errors=True)
