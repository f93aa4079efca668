"""The blob store: bytes by digest in Blob storage.

Rules kept here:

- A blob appears when it is whole and its bytes have hashed to its name, and never before: Azure
  shows it when its one request, or the list of its blocks, is taken. Nobody overwrites it
  (``If-None-Match: *``).
- Larger blobs go in blocks. A block is named by its number and digest, and Azure checks its bytes
  by MD5 as they come: an upload that was interrupted, by whomever, goes on with what is missing.
  Azure drops blocks that nobody commits after a week.
- Who reads, reads one state of a blob to its end (``If-Match``), also when the connection is lost.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

from azure.core import MatchConditions
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobBlock

from edgefleet.errors import IntegrityError
from edgefleet.interfaces.object_blobs import ObjectBlobStore
from edgefleet.interfaces.resuming import Pieces, ResumingStream
from edgefleet.interfaces.sending import send_in_parts, size_of_parts
from edgefleet.protocol.digest import blob_path
from edgefleet_azure.backend import AzureBackend
from edgefleet_azure.clients import STORAGE_AUDIENCE, STORAGE_VERSION
from edgefleet_azure.errors import code_of, status_of, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from azure.storage.blob import BlobClient

    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.resuming import Body
    from edgefleet.interfaces.sending import Told
    from edgefleet.protocol.bundle import Descriptor
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

# https://learn.microsoft.com/azure/storage/blobs/scalability-targets
MAX_BLOCKS = 50_000


class AzureBlobStore(AzureBackend, ObjectBlobStore):
    """Blobs in the container ``PREFIX-models``, at ``blobs/sha256/<hex>``.

    Args:
        clients: to reach storage with; closed with the store.
        settings: storage account, prefix, size of blocks.
    """

    where: ClassVar[str] = "in storage"
    ended_cure: ClassVar[str] = "let one operator push at a time, then push again"

    def __init__(self, clients: Clients, settings: AzureSettings) -> None:
        super().__init__((settings.models_url, *settings.mirrors), whole_bytes=settings.block_bytes)
        self._clients = clients
        self._block_bytes = settings.block_bytes
        self._url = settings.models_url

    def _blob(self, digest: str) -> BlobClient:
        return self._clients.container("models").get_blob_client(blob_path(digest))

    def _is_missing(self, error: Exception) -> bool:
        return code_of(error) == "BlobNotFound"

    def _stored_size(self, digest: str) -> int:
        return int(self._blob(digest).get_blob_properties().size)

    def _stream(self, digest: str, offset: int) -> BlobStream:
        return BlobStream(self._clients, f"{self._url}/{blob_path(digest)}", offset)

    def _put_whole(self, descriptor: Descriptor, data: bytes) -> None:
        with _unless_there():
            # Without `overwrite` it is conditional, and one request.
            self._blob(descriptor.digest).upload_blob(data, validate_content=True)

    def _send(self, source: Callable[[], BinaryIO], descriptor: Descriptor, told: Told) -> bool:
        blob = self._blob(descriptor.digest)
        there = _staged(blob)

        def send(number: int, data: bytes) -> BlobBlock:
            block_id = _block_id(number, data)
            if there.get(block_id) != len(data):
                blob.stage_block(block_id, data, length=len(data), validate_content=True)
            return BlobBlock(block_id)

        block_bytes = size_of_parts(descriptor, wanted=self._block_bytes, most=MAX_BLOCKS)
        with source() as stream:
            blocks = send_in_parts(stream, descriptor, block_bytes, send, told)
        try:
            with _unless_there():
                blob.commit_block_list(blocks, match_condition=MatchConditions.IfMissing)
        except Exception as error:
            if code_of(error) == "InvalidBlockList":
                return False
            raise
        return True


class BlobStream(ResumingStream):
    """A blob's bytes from an offset on.

    Args:
        clients: to reach storage with.
        url: of the blob.
        offset: first byte to read; the blob's size for none.

    Raises:
        AzureError: when made: there is no such blob, or it may not be read.
    """

    store: ClassVar[str] = "Blob storage"
    lost: ClassVar[tuple[type[Exception], ...]] = (AzureError, OSError)

    def __init__(self, clients: Clients, url: str, offset: int) -> None:
        self._clients, self._url = clients, url
        super().__init__(offset)

    def _fetch(self, offset: int, tag: str | None) -> tuple[Body, str | None]:
        headers = {"x-ms-version": STORAGE_VERSION}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        if tag is not None:
            headers["If-Match"] = tag
        try:
            response = self._clients.call(
                "GET", self._url, audience=STORAGE_AUDIENCE, headers=headers, stream=True
            )
        except Exception as error:
            if status_of(error) == 416:
                return io.BytesIO(), tag  # the offset is the end
            if tag is not None and status_of(error) == 412:
                raise IntegrityError("the blob was replaced while it was read") from error
            raise
        return Pieces(response.iter_raw(), response.close), response.headers.get("ETag")

    def _is_refusal(self, error: Exception) -> bool:
        return status_of(error) != 0

    def _meaning(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)


def _staged(blob: BlobClient) -> dict[str, int]:
    """Blocks of a blob that nobody has committed, with their sizes."""
    try:
        _, staged = blob.get_block_list("uncommitted")
    except Exception as error:
        if code_of(error) == "BlobNotFound":
            return {}
        raise
    return {str(block.id): int(cast("Any", block.size)) for block in staged}


def _block_id(number: int, data: bytes) -> str:
    """The same for the same bytes in the same place; all of one length, as Azure wants them."""
    return base64.b64encode(number.to_bytes(4) + hashlib.sha256(data).digest()).decode("ascii")


@contextlib.contextmanager
def _unless_there() -> Iterator[None]:
    """Let a write go that finds that somebody else has stored the blob meanwhile."""
    try:
        yield
    except Exception as error:
        if code_of(error) not in {"BlobAlreadyExists", "ConditionNotMet"}:
            raise
