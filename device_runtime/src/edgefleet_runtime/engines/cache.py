"""Engines built from models on this machine, or on one just like it: a folder on the disk.

Rules kept here:

- An entry's name is the digest of all that it depends on (`Parts`): an engine loaded for another
  model, option, library, driver or GPU than it was built for gives wrong answers.
- An entry appears whole, by a rename, with a list of its files and their digests. One that isn't
  what its list says is removed and built anew.
- What is being built is locked by its builder: what a crash left behind isn't, and is swept away.
- Capped: the least recently used go first, never those in use.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import DocumentError, NotFoundError
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet_runtime.engines.parts import Parts
from edgefleet_runtime.faults import point
from edgefleet_runtime.store import eviction
from edgefleet_runtime.store.durable import sync_folder, write_durably

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_log = logging.getLogger(__name__)

MANIFEST = "entry.json"
MAX_MANIFEST_BYTES = 256 << 10
MAX_FILES = 256  # of one entry
MAX_BYTES = 4 << 30  # of all entries of a device, unless told otherwise
KEY = re.compile(r"\A[0-9a-f]{64}\Z")
FILE_NAME = re.compile(r"\A[A-Za-z0-9_][A-Za-z0-9._+-]{0,200}\Z")
_BUILDING = ".building-"


class EntryFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an entry: SHA-256 in hexadecimal digits, and size."""

    sha256: str
    bytes: int


class Entry(Document, frozen=True, kw_only=True):
    """An entry's list: what it was built for, and its files by name."""

    parts: Parts
    files: dict[str, EntryFile]

    @property
    def bytes(self) -> int:
        """What its files take."""
        return sum(file.bytes for file in self.files.values())


def read_entry(data: bytes) -> Entry:
    """Decode an entry's list from outside.

    Raises:
        DocumentError: it is malformed, or names a file as no entry does.
    """
    entry = decode(Entry, data, max_bytes=MAX_MANIFEST_BYTES)
    wrong = [n for n in entry.files if not FILE_NAME.match(n) or n == MANIFEST]
    if wrong or not 0 < len(entry.files) <= MAX_FILES:
        raise DocumentError(f"the engine's list of files is wrong: {wrong or len(entry.files)}")
    return entry


class EngineCache:
    """The entries in a folder.

    Args:
        root: the folder; made when something is built.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: str) -> Path | None:
        """The folder of an entry that is what its list says; it is the most recently used then."""
        folder = self.root / key
        try:
            os.utime(folder / MANIFEST)
        except OSError:
            return None
        if self._intact(folder, key):
            return folder
        _log.warning("the engine %s is damaged, or was changed since; removing it", key)
        self.remove(key)
        return None

    def entries(self) -> dict[str, Entry]:
        """What is here, by key; entries whose list can't be read are passed over."""
        found: dict[str, Entry] = {}
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if KEY.match(folder.name):
                try:
                    found[folder.name] = read_entry((folder / MANIFEST).read_bytes())
                except (OSError, DocumentError) as error:
                    _log.warning("engine %s: %s", folder.name, error)
        return found

    def folder_of(self, key: str) -> tuple[Path, Entry]:
        """Folder and list of an entry.

        Raises:
            NotFoundError: there is none, or it is damaged.
        """
        folder = self.find(key) if KEY.match(key) else None
        if folder is None:
            raise NotFoundError(f"no engine {key} here", cure="see 'engines list' for those here")
        return folder, read_entry((folder / MANIFEST).read_bytes())

    @contextmanager
    def building(self, parts: Parts) -> Iterator[Path]:
        """A folder to fill; it becomes the entry when the block ends without an error."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.sweep()
        folder = self.root / f"{_BUILDING}{parts.key}-{os.getpid()}"
        folder.mkdir()
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
            self._seal(folder, parts)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def sweep(self) -> None:
        """Remove what builders left that died."""
        for folder in self.root.glob(f"{_BUILDING}*") if self.root.is_dir() else ():
            try:
                lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                _log.debug("%s is being built", folder.name)
            finally:
                os.close(lock)

    def make_room(self, max_bytes: int, *, in_use: Collection[str] = ()) -> tuple[str, ...]:
        """Remove the least recently used entries until the rest fits; returns what went.

        Args:
            max_bytes: of all entries together.
            in_use: keys of those that stay in any case.
        """
        known = [
            eviction.Entry(
                key, entry.bytes, (self.root / key / MANIFEST).stat().st_mtime, key in in_use
            )
            for key, entry in self.entries().items()
        ]
        free = sum(entry.bytes for entry in known if not entry.pinned)
        used = sum(entry.bytes for entry in known)
        limit = max(max_bytes, used - free)  # what is in use stays, whatever the cap
        chosen = eviction.choose(known, needed=0, max_bytes=limit) or ()
        for entry in chosen:
            self.remove(entry.name)
        return tuple(entry.name for entry in chosen)

    def remove(self, key: str) -> None:
        """Remove an entry; its list goes first, so that a crash leaves none that looks whole."""
        folder = self.root / key
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def _seal(self, folder: Path, parts: Parts) -> None:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
        files = {path.name: facts_of(path) for path in paths}
        for path in paths:
            sync(path)
        point("engine.built")
        write_durably(folder / MANIFEST, encode(Entry(parts=parts, files=files)))
        read_entry((folder / MANIFEST).read_bytes())  # an entry that can't be read is none
        target = self.root / parts.key
        if target.exists():
            self.remove(parts.key)
        folder.rename(target)
        sync_folder(self.root)
        point("engine.sealed")

    def _intact(self, folder: Path, key: str) -> bool:
        try:
            entry = read_entry((folder / MANIFEST).read_bytes())
            seen = {name: facts_of(folder / name) for name in entry.files}
        except (OSError, DocumentError):
            return False
        return entry.parts.key == key and seen == entry.files


def sync(path: Path) -> None:
    """Flush a file's content to the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def facts_of(path: Path) -> EntryFile:
    """Digest and size of a file.

    Raises:
        DocumentError: it is a link.
    """
    if path.is_symlink():
        raise DocumentError(f"{path.name} is a link")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return EntryFile(sha256=digest, bytes=stream.tell())
