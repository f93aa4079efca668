"""The registry: bytes in files by digest; versions are documents of the state store."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from edgefleet.errors import NotFoundError
from edgefleet.interfaces.blobs import BlobStore
from edgefleet.interfaces.document_registry import DocumentRegistry
from edgefleet.protocol.digest import blob_path
from edgefleet.protocol.files import checked_chunks, replacing
from edgefleet_template.state import SqliteStateStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.protocol.bundle import Descriptor

    Progress = Callable[[int], object]


class FolderBlobStore(BlobStore):
    """Blobs below ``models/`` of the shared folder, where devices read them.

    Args:
        home: the fleet's folder.
    """

    provider = "template"

    def __init__(self, home: Path) -> None:
        self._root = home / "models"

    @property
    def sources(self) -> tuple[str, ...]:
        return (self._root.as_uri(),)

    def _size(self, digest: str) -> int | None:
        path = self._root / blob_path(digest)
        return path.stat().st_size if path.is_file() else None

    def _open(self, digest: str, offset: int) -> BinaryIO:
        try:
            stream = (self._root / blob_path(digest)).open("rb")
        except FileNotFoundError as error:
            raise NotFoundError(f"blob {digest} is not in the registry") from error
        stream.seek(offset)
        return stream

    def _put(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        progress: Progress | None,
    ) -> None:
        target = self._root / blob_path(descriptor.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        # The file appears under its name when all of it was written and hashed to that name.
        with replacing(target) as partial, source() as stream, partial.open("wb") as to:
            for chunk in checked_chunks(stream, descriptor):
                to.write(chunk)
                if progress is not None:
                    progress(len(chunk))


def registry_below(home: Path) -> DocumentRegistry:
    """The registry of a fleet's folder."""
    return DocumentRegistry(FolderBlobStore(home), SqliteStateStore(home), provider="template")
