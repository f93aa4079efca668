"""The registry: bytes in files by digest, versions and aliases as documents of the folder's state.

Rules kept here:

- A blob appears by a rename, after its bytes hashed to its name and were flushed.
- An interrupted push goes on blob by blob: what is there whole is skipped. A half-written blob is
  written anew, because hashing its first half again costs as much as copying it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from edgefleet.errors import EdgeFleetError, StorageFullError
from edgefleet.interfaces.blobs import BlobStore, missing
from edgefleet.interfaces.document_registry import DocumentRegistry
from edgefleet.protocol.digest import CHUNK_BYTES, blob_path, hex_of
from edgefleet.protocol.layout import checked_chunks
from edgefleet_local.errors import translate
from edgefleet_local.files import locked, make_folder, sync_folder
from edgefleet_local.journal import Journal
from edgefleet_local.state import DirectoryStateStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.protocol.bundle import Descriptor

    Progress = Callable[[int], object]

FLUSH_BYTES = 32 * CHUNK_BYTES  # handed to the disk at once, while hashing goes on


class DirectoryBlobStore(BlobStore):
    """Blobs below a folder, for any number of processes on this machine.

    Args:
        home: the fleet's folder.
    """

    provider = "local"

    def __init__(self, home: Path) -> None:
        self._root = home.absolute() / "registry"
        self._locks = home / "locks" / "blobs"
        self._partials = home / "partial" / "blobs"
        self._journal = Journal(home)

    @property
    def sources(self) -> tuple[str, ...]:
        return (self._root.as_uri(),)

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _size(self, digest: str) -> int | None:
        try:
            return (self._root / blob_path(digest)).stat().st_size
        except FileNotFoundError:
            return None

    def _open(self, digest: str, offset: int) -> BinaryIO:
        try:
            stream = (self._root / blob_path(digest)).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise missing(digest) from error
        stream.seek(offset)
        return stream

    def _put(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        progress: Progress | None,
    ) -> None:
        # Blobs whose digests begin alike take turns, so that at most 256 partial files ever exist.
        shard = hex_of(descriptor.digest)[:2]
        target = self._root / blob_path(descriptor.digest)
        partial = self._partials / shard
        with locked(self._locks / shard):
            if self._size(descriptor.digest) == descriptor.size:
                if progress is not None:
                    progress(descriptor.size)
                return
            make_folder(partial.parent)
            make_folder(target.parent)
            try:
                with source() as stream:
                    _copy(stream, descriptor, partial, progress)
                partial.replace(target)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
            sync_folder(target.parent)
        self._journal.write("registry.put", descriptor.digest, descriptor.size)


def _copy(
    stream: BinaryIO, descriptor: Descriptor, partial: Path, progress: Progress | None
) -> None:
    """Write a source's bytes, checked and flushed, to a new file that nobody may change."""
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    try:
        written = flushed = 0
        for chunk in checked_chunks(stream, descriptor):
            left = chunk
            while left:
                count = os.write(handle, left)
                if count == 0:
                    raise StorageFullError(f"no room left for {partial}", cure="free space there")
                left = left[count:]
            written += len(chunk)
            if written - flushed >= FLUSH_BYTES:
                _begin_flush(handle, flushed, written - flushed)
                flushed = written
            if progress is not None:
                progress(len(chunk))
        os.fsync(handle)
    finally:
        os.close(handle)


def _begin_flush(handle: int, start: int, length: int) -> None:
    """Let the disk begin with what was written, so that the flush at the end has little left.

    Linux starts to write a range back when it is told that the range won't be needed soon
    (mm/fadvise.c); elsewhere this does nothing.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, start, length, os.POSIX_FADV_DONTNEED)


class LocalRegistry(DocumentRegistry):
    """Model versions in a folder.

    Args:
        home: the fleet's folder.
    """

    def __init__(self, home: Path) -> None:
        super().__init__(DirectoryBlobStore(home), DirectoryStateStore(home), provider="local")

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)
