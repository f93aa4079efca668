"""A blob on its way into the store: continued where it stopped, accepted if it hashes right."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from edgefleet.errors import IntegrityError, StorageFullError
from edgefleet.protocol.digest import CHUNK_BYTES
from edgefleet.protocol.files import translate_full
from edgefleet_runtime.faults import point
from edgefleet_runtime.store.durable import sync_folder

if TYPE_CHECKING:
    from types import TracebackType


class Partial:
    """Bytes of a blob received so far, in a file that outlives the process.

    Args:
        digest: what the whole must hash to.
        path: where the bytes gather.
        target: where the blob appears when it is whole.
    """

    def __init__(self, digest: str, path: Path, target: Path) -> None:
        self.digest = digest
        self.offset = 0
        self._path = path
        self._target = target

    def __enter__(self) -> Self:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        self._stream = os.fdopen(handle, "r+b", buffering=0)
        self._hasher = hashlib.sha256()
        while chunk := self._stream.read(CHUNK_BYTES):
            self._hasher.update(chunk)
            self.offset += len(chunk)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.close()
        if isinstance(error, StorageFullError):
            self._path.unlink(missing_ok=True)  # a full disk needs the room more than we do

    def write(self, chunk: bytes) -> None:
        """Append bytes.

        Raises:
            StorageFullError: the disk is full; what was gathered is given up. Retryable: somebody
                else may free room.
        """
        try:
            with translate_full(self._path):
                written = 0
                while written < len(chunk):  # a raw write may take less than it was given
                    written += self._stream.write(memoryview(chunk)[written:]) or 0
        except StorageFullError as error:
            error.retryable = True
            raise
        self._hasher.update(chunk)
        self.offset += len(chunk)
        point("fetch.chunk")

    def reset(self) -> None:
        """Start again from nothing."""
        self._stream.seek(0)
        self._stream.truncate()
        self._hasher = hashlib.sha256()
        self.offset = 0

    def commit(self) -> None:
        """Make it a blob; when this returns, it outlives a power cut.

        Raises:
            IntegrityError: the bytes hash to something else; they were thrown away.
        """
        if "sha256:" + self._hasher.hexdigest() != self.digest:
            self.reset()
            self._path.unlink(missing_ok=True)
            raise IntegrityError(
                f"blob {self.digest} holds other content than its digest says",
                cure="copy or push it again",
            )
        os.fchmod(self._stream.fileno(), 0o444)  # nobody changes a blob; engines only read
        os.fsync(self._stream.fileno())
        point("fetch.synced")
        self._path.replace(self._target)
        point("fetch.renamed")
        sync_folder(self._target.parent)
