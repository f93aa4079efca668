"""The state store: one object a document, changed under its generation.

Rules kept here:

- Cloud Storage compares, never we: generation 0 to create, the generation that was read to replace
  and to delete (https://cloud.google.com/storage/docs/request-preconditions).
- The tag of a document is its generation, which every write changes, also one of the same bytes.
- A write whose answer was lost and that was repeated finds itself done: each write leaves a mark of
  its own beside the document, so that nobody conflicts with himself. Nor does who deletes: what
  is gone at a repeated try was deleted at the one whose answer was lost.
- One object takes about one write a second; who comes too often is told so (429) and waits.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces.state import StateStore, Stored
from edgefleet_gcp.answers import status_of
from edgefleet_gcp.errors import is_no_object
from edgefleet_gcp.service import GcpService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_gcp.clients import Clients
    from edgefleet_gcp.settings import GcpSettings

_THROTTLED = 429  # which nothing was done before
_MARK = "edgefleet-write"  # name of metadata that each write sets anew


class GcsStateStore(GcpService, StateStore):
    """Documents below ``gs://BUCKET/PREFIX/state/``, for any number of operators.

    Args:
        clients: to reach Cloud Storage with; closed with the store.
        settings: bucket and prefix.
    """

    needs = ("state",)
    longest_pause_s = 0.5

    def __init__(self, clients: Clients, settings: GcpSettings) -> None:
        self._clients = clients
        self._settings = settings
        self._root = f"{settings.prefix}/state/"

    def _blob(self, key: str) -> Any:  # noqa: ANN401 - google-cloud-storage has no types
        return self._clients.bucket.blob(self._root + key)

    def _read(self, key: str) -> Stored | None:
        blob = self._blob(key)
        try:
            data = blob.download_as_bytes(retry=self._clients.retries, checksum="crc32c")
        except Exception as error:
            if is_no_object(error):
                return None
            raise
        return Stored(data=data, tag=str(blob.generation))

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        blob = self._blob(key)
        mark = uuid.uuid4().hex
        blob.metadata = {_MARK: mark}
        try:
            blob.upload_from_string(
                data,
                content_type="application/json",
                if_generation_match=_generation(expect),
                checksum="crc32c",
                retry=self._clients.retries,
            )
        except Exception as error:
            if status_of(error) != 412 and not (expect is not None and is_no_object(error)):
                raise
            own = self._tag_of_own(key, mark)
            if own is None:
                what = "exists already, is gone, or somebody changed it"
                raise self._conflict(key, what) from error
            return own
        return str(blob.generation)

    def _tag_of_own(self, key: str, mark: str) -> str | None:
        """The tag of a document that lies there by the very write that has this mark."""
        blob = self._blob(key)
        try:
            blob.reload(retry=self._clients.retries)
        except Exception as error:
            if is_no_object(error):
                return None
            raise
        return str(blob.generation) if (blob.metadata or {}).get(_MARK) == mark else None

    def _delete(self, key: str, expect: str) -> None:
        tries: list[Exception] = []
        delete = self._clients.retries(self._blob(key).delete, on_error=tries.append)
        try:
            delete(if_generation_match=_generation(expect), retry=None)
        except Exception as error:
            if is_no_object(error):
                if any(status_of(one) != _THROTTLED for one in tries):
                    return
                raise self._conflict(key, "is gone") from error
            if status_of(error) == 412:
                raise self._conflict(key, "is gone, or somebody changed it") from error
            raise

    def _keys(self, prefix: str) -> Iterator[str]:
        found = self._clients.bucket.list_blobs(
            prefix=self._root + prefix,
            fields="items(name),nextPageToken",
            retry=self._clients.retries,
        )
        for blob in found:
            yield str(blob.name).removeprefix(self._root)


def _generation(tag: str | None) -> int:
    """The generation that a tag means; one that nothing has, where it is no tag of ours."""
    if tag is None:
        return 0
    return int(tag) if tag.isdecimal() and tag != "0" else 1
