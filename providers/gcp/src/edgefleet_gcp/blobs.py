"""The blob store: bytes by digest in Cloud Storage.

Rules kept here:

- Nobody overwrites a blob: it is created under generation 0, or not at all.
- Small blobs go in one request with their CRC32C, which Cloud Storage compares before it shows
  them; larger ones by a resumable upload, which goes on after a kill (`uploads`).
- Who reads, reads one generation of a blob to its end, also when the connection is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from edgefleet.interfaces.object_blobs import ObjectBlobStore
from edgefleet.protocol.digest import blob_path
from edgefleet_gcp.answers import status_of
from edgefleet_gcp.backend import GcpBackend
from edgefleet_gcp.errors import is_no_object
from edgefleet_gcp.reading import ObjectStream
from edgefleet_gcp.uploads import send

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.sending import Told
    from edgefleet.protocol.bundle import Descriptor
    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.settings import GcpSettings


class GcsBlobStore(GcpBackend, ObjectBlobStore):
    """Blobs below ``gs://BUCKET/PREFIX/blobs/sha256/``.

    Args:
        clients: to reach Cloud Storage with; closed with the store.
        settings: bucket, prefix, size of chunks.
        base: folder that the settings' ``cache`` starts from.
    """

    where: ClassVar[str] = "in Cloud Storage"
    ended_cure: ClassVar[str] = "push again"

    def __init__(self, clients: Clients, settings: GcpSettings, *, base: Path = Path()) -> None:
        super().__init__((settings.root, *settings.mirrors), whole_bytes=settings.chunk_bytes)
        self._clients = clients
        self._prefix = settings.prefix
        self._chunk_bytes = settings.chunk_bytes
        self._uploads = base / settings.cache / "uploads" / settings.bucket / settings.prefix

    def _name(self, digest: str) -> str:
        return f"{self._prefix}/{blob_path(digest)}"

    def _blob(self, digest: str) -> Any:  # noqa: ANN401 - google-cloud-storage has no types
        return self._clients.bucket.blob(self._name(digest))

    def _is_missing(self, error: Exception) -> bool:
        return is_no_object(error)

    def _stored_size(self, digest: str) -> int:
        blob = self._blob(digest)
        blob.reload(retry=self._clients.retries)
        return int(blob.size)

    def _stream(self, digest: str, offset: int) -> ObjectStream:
        return ObjectStream(self._clients, self._name(digest), offset)

    def _put_whole(self, descriptor: Descriptor, data: bytes) -> None:
        try:
            self._blob(descriptor.digest).upload_from_string(
                data,
                content_type="application/octet-stream",
                if_generation_match=0,
                checksum="crc32c",
                retry=self._clients.retries,
            )
        except Exception as error:
            if status_of(error) != 412:  # else somebody has stored it, or we did and weren't told
                raise

    def _send(self, source: Callable[[], BinaryIO], descriptor: Descriptor, told: Told) -> bool:
        return send(
            self._clients,
            self._blob(descriptor.digest),
            source,
            descriptor,
            told,
            chunk_bytes=self._chunk_bytes,
            folder=self._uploads,
        )
