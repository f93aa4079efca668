"""The state store: one blob a document, changed by conditional writes.

Rules kept here:

- Azure compares, never we: ``If-None-Match: *`` to create, ``If-Match`` to replace and to delete
  (https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations).
- The tag of a document is its ETag, which every write changes, also one of the same bytes.
- A write whose answer was lost and that was repeated finds itself done. Each write leaves a mark of
  its own beside the document, so that nobody conflicts with himself. Nor does who deletes: what
  is gone at a repeated try was deleted at the one whose answer was lost.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from azure.core import MatchConditions
from azure.storage.blob import ContentSettings

from edgefleet.interfaces.state import StateStore, Stored
from edgefleet_azure.errors import code_of, status_of
from edgefleet_azure.retries import maybe_done_before
from edgefleet_azure.service import AzureService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from azure.storage.blob import BlobClient, ContainerClient

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

_MARK = "edgefleetwrite"  # name of metadata that each write sets anew
_JSON = ContentSettings(content_type="application/json")


class BlobStateStore(AzureService, StateStore):
    """Documents in the container ``PREFIX-state``, for any number of operators.

    Args:
        clients: to reach storage with; closed with the store.
        settings: storage account and prefix.
    """

    needs = ("state",)
    longest_pause_s = 0.2

    def __init__(self, clients: Clients, settings: AzureSettings) -> None:
        self._clients = clients
        self._settings = settings

    @property
    def _container(self) -> ContainerClient:
        return self._clients.container("state")

    def _read(self, key: str) -> Stored | None:
        try:
            found = self._container.download_blob(key)
            # Read whole before the tag is: each part of it is asked for under the same tag.
            data = found.readall()
        except Exception as error:
            if code_of(error) == "BlobNotFound":
                return None
            raise
        return Stored(data=data, tag=str(found.properties.etag))

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        condition = (
            {"match_condition": MatchConditions.IfMissing}
            if expect is None
            else {"match_condition": MatchConditions.IfNotModified, "etag": expect}
        )
        blob = self._container.get_blob_client(key)
        mark = {_MARK: uuid.uuid4().hex}
        try:
            reply = blob.upload_blob(
                data, overwrite=True, content_settings=_JSON, metadata=mark, **condition
            )
        except Exception as error:
            if status_of(error) not in {404, 409, 412} or code_of(error) == "ContainerNotFound":
                raise
            tag = _tag_of_own(blob, mark)
            if tag is None:
                raise self._conflict(key, _became(error)) from error
            return tag
        return str(reply["etag"])

    def _delete(self, key: str, expect: str) -> None:
        try:
            self._container.delete_blob(
                key, etag=expect, match_condition=MatchConditions.IfNotModified
            )
        except Exception as error:
            if status_of(error) not in {404, 412} or code_of(error) == "ContainerNotFound":
                raise
            if status_of(error) == 404 and maybe_done_before(error):
                return
            raise self._conflict(key, _became(error)) from error

    def _keys(self, prefix: str) -> Iterator[str]:
        yield from self._container.list_blob_names(name_starts_with=prefix or None)


def _tag_of_own(blob: BlobClient, mark: dict[str, str]) -> str | None:
    """The tag of a document that lies there by the very write that has this mark."""
    try:
        found = blob.get_blob_properties()
    except Exception as error:
        if status_of(error) == 404:
            return None
        raise
    return str(found.etag) if found.metadata == mark else None


def _became(error: Exception) -> str:
    """What became of a document whose condition was refused."""
    return "is gone" if status_of(error) == 404 else "exists already, or somebody changed it"
