"""Blobs by digest in a folder: crash-safe, capped in bytes, and nothing in it that wasn't checked.

Rules kept here:

- A file below ``blobs/`` appears by a rename, after its content hashed to its name and was flushed.
- What is on its way lies below ``partial/`` and can be continued after any crash.
- When room is needed, the least recently used blobs go; those that somebody pinned never do.
- A variant's files are hard links below ``materialized/<manifest's hex>/``: they cost no room.
- One process owns the folder (see `edgefleet_runtime.lock`), one thread writes; while it fetches,
  a few do, each another blob.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import IntegrityError, NotFoundError, StorageFullError
from edgefleet.protocol.bundle import files_of
from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.files import checked_bytes, checked_chunks
from edgefleet.protocol.layout import lay_out
from edgefleet_runtime.faults import point
from edgefleet_runtime.store import eviction
from edgefleet_runtime.store.partial import Partial

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from edgefleet.protocol.bundle import Descriptor, Manifest

_HEX = re.compile(r"\A[0-9a-f]{64}\Z")


class BlobStore:
    """The blobs below a folder.

    Args:
        root: the folder; made when missing, cleared of what a crash left behind.
        max_bytes: cap of everything in it.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._blobs = root / "blobs" / "sha256"
        self._partial = root / "partial"
        self._materialized = root / "materialized"
        self._pins: dict[str, frozenset[str]] = {}
        for folder in (self._blobs, self._partial, self._materialized):
            folder.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        """Remove what no rename completed: foreign names, links, half-made folders."""
        for path in (*self._blobs.iterdir(), *self._partial.iterdir()):
            if not (_HEX.match(path.name) and stat.S_ISREG(path.lstat().st_mode)):
                _remove(path)
        for path in self._materialized.iterdir():
            if not _HEX.match(path.name) or path.is_symlink() or not path.is_dir():
                _remove(path)

    # ------------------------------------------------------------------------------------ reading

    def have(self) -> frozenset[str]:
        """Digests of all blobs here."""
        return frozenset(f"sha256:{path.name}" for path in self._blobs.iterdir())

    def begun(self) -> frozenset[str]:
        """Digests of all blobs that are here in part."""
        return frozenset(f"sha256:{path.name}" for path in self._partial.iterdir())

    def __contains__(self, digest: str) -> bool:
        return (self._blobs / hex_of(digest)).is_file()

    def path_of(self, digest: str) -> Path:
        """Where a blob lies; using it makes it the most recently used.

        Raises:
            NotFoundError: it isn't here.
        """
        path = self._blobs / hex_of(digest)
        try:
            os.utime(path)
        except FileNotFoundError as error:
            raise NotFoundError(f"the store has no blob {digest}") from error
        return path

    def read(self, descriptor: Descriptor, *, name: str | None = None) -> bytes:
        """The bytes of a small blob, checked; see `verify` for the errors."""
        with self.path_of(descriptor.digest).open("rb", buffering=0) as stream:
            return checked_bytes(stream, descriptor, name=name)

    def verify(self, descriptor: Descriptor, *, name: str | None = None) -> None:
        """Read a blob and check its content.

        Args:
            descriptor: digest and size due.
            name: file that the blob holds, for the error.

        Raises:
            NotFoundError: it isn't here.
            IntegrityError: its content is damaged. It is removed, so that it can be fetched again.
        """
        try:
            with self.path_of(descriptor.digest).open("rb", buffering=0) as stream:
                for _ in checked_chunks(stream, descriptor, name=name):
                    pass
        except IntegrityError:
            self.discard(descriptor.digest)
            raise

    def size_of(self, digest: str) -> int:
        """Size of a blob in bytes; raises `NotFoundError` when it isn't here."""
        return self.path_of(digest).stat().st_size

    # ------------------------------------------------------------------------------------ writing

    def partial(self, digest: str) -> Partial:
        """What is here of a blob on its way, to be continued; use as a context manager."""
        name = hex_of(digest)
        return Partial(digest, self._partial / name, self._blobs / name)

    def partial_bytes(self, digest: str) -> int:
        """How many bytes of a blob on its way are here."""
        try:
            return (self._partial / hex_of(digest)).stat().st_size
        except FileNotFoundError:
            return 0

    def discard(self, digest: str) -> None:
        """Remove a blob, if it is here."""
        (self._blobs / hex_of(digest)).unlink(missing_ok=True)

    def clear(self, kept: Collection[str]) -> None:
        """Remove all blobs, whole or in part, that nobody pinned and that are not among these.

        The folders that they were laid out in go, too.

        Args:
            kept: digests.
        """
        stay = {hex_of(d) for pins in (*self._pins.values(), kept) for d in pins}
        for folder in (self._materialized, self._partial, self._blobs):
            for path in folder.iterdir():
                if path.name not in stay:
                    _remove(path)

    def materialize(self, digest: str, manifest: Manifest) -> Path:
        """The folder that holds a variant's files; laid out now if need be.

        Args:
            digest: of the manifest.
            manifest: decoded; its blobs are here and verified.

        Raises:
            IntegrityError: a file laid out is a copy (on a disk without links) and damaged. The
                folder is removed, so that it can be laid out again.
        """
        folder = self._materialized / hex_of(digest)
        if folder.exists() and not self._intact(folder, manifest):
            shutil.rmtree(folder)
        lay_out(manifest, lambda descriptor: self.path_of(descriptor.digest), folder)
        point("store.laid-out")
        return folder

    def _intact(self, folder: Path, manifest: Manifest) -> bool:
        """Whether a folder still holds the variant's files: links to our blobs, or equal copies."""
        for path, descriptor in files_of(manifest).items():
            file, blob = folder / path, self._blobs / hex_of(descriptor.digest)
            try:
                if not file.samefile(blob):
                    with file.open("rb", buffering=0) as stream:
                        for _ in checked_chunks(stream, descriptor, name=path):
                            pass
            except (OSError, IntegrityError):
                return False
        return True

    # --------------------------------------------------------------------------------------- room

    def pin(self, owner: str, digests: Iterable[str]) -> None:
        """Keep these blobs whatever room is needed, in place of what ``owner`` pinned before."""
        self._pins[owner] = frozenset(digests)

    def used_bytes(self) -> int:
        """What blobs, partial blobs and copies of files take, in bytes."""
        return sum(entry.bytes for entry, _ in self._entries())

    def make_room(self, needed: int) -> None:
        """Remove blobs that nobody uses until ``needed`` more bytes fit under the cap.

        Raises:
            StorageFullError: they can't fit beside what is in use; nothing was removed.
        """
        places = dict(self._entries())
        chosen = eviction.choose(places, needed=needed, max_bytes=self.max_bytes)
        if chosen is None:
            pinned = sum(entry.bytes for entry in places if entry.pinned)
            raise StorageFullError(
                f"{needed} bytes do not fit into the store: its cap is {self.max_bytes} bytes and "
                f"{pinned} of them are in use",
                cure="raise the store's cap, or deploy smaller variants",
            )
        for entry in chosen:
            _remove(places[entry])
            point("store.evicted")

    def _entries(self) -> Iterator[tuple[eviction.Entry, Path]]:
        pinned = {hex_of(digest) for pins in self._pins.values() for digest in pins}
        for folder in (self._blobs, self._partial):
            for path in folder.iterdir():
                info = path.lstat()
                kept = path.name in pinned
                yield eviction.Entry(str(path), info.st_size, info.st_mtime, kept), path
        for path in self._materialized.iterdir():
            # Links share the blob's room; while they last, removing the blob frees nothing. So an
            # unpinned folder goes before anything else: it counts as never used.
            size = sum(f.lstat().st_size for f in _files(path) if f.lstat().st_nlink == 1)
            yield eviction.Entry(str(path), size, 0.0, path.name in pinned), path


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
