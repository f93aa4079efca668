"""The mock's storage account as its Azure ML works with it: without a network between them."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote

from azure.storage.blob import BlobSasPermissions, generate_blob_sas

from edgefleet.testing.cloud.calls import Refused
from edgefleet_azure.cloud.accounts import Blob

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_azure.cloud.accounts import StorageAccount

MAX_BYTES = 8 << 30  # of one blob
LINK_S = 3600  # a link to a log is good for so long


class MlStorage:
    """A storage account.

    Args:
        account: itself.
        url: gives the address of its host, without a slash at the end.
    """

    def __init__(self, account: StorageAccount, url: Callable[[], str]) -> None:
        self._account, self._url = account, url

    @property
    def account(self) -> str:
        """Name of the account."""
        return self._account.name

    def names(self, container: str, prefix: str) -> list[str]:
        """Names of the blobs below a prefix, sorted."""
        with self._account.lock:
            found = self._account.containers.get(container)
            names = [] if found is None else list(found.blobs)
        return sorted(name for name in names if name.startswith(prefix))

    def read(self, container: str, name: str) -> bytes:
        """A blob's content; `KeyError` when there is none."""
        try:
            content = self._account.blob(container, name).content
        except Refused as error:
            raise KeyError(name) from error
        with self._account.open(content) as stream:
            return stream.read()

    def write(self, container: str, name: str, data: bytes) -> None:
        """Put a blob; the container is made if need be."""
        account = self._account
        with account.lock:
            if container not in account.containers:
                account.create(container)
            content = account.take_in(io.BytesIO(data), MAX_BYTES)
            now = account.clock()
            account.put(container, name, Blob(content, account.new_etag(), now, now))

    def append(self, container: str, name: str, data: bytes) -> None:
        """Add to a blob's end; made if need be."""
        with self._account.lock:
            found = self._account.containers.get(container)
            if found is None or name not in found.blobs:
                self.write(container, name, b"")
            self._account.extend(container, name, data)

    def link(self, container: str, name: str) -> str:
        """An address with a SAS that reads one blob."""
        account = self._account
        sas = generate_blob_sas(
            account.name,
            container,
            name,
            account_key=account.keys[0],
            permission=BlobSasPermissions(read=True),
            expiry=datetime.fromtimestamp(account.clock(), UTC) + timedelta(seconds=LINK_S),
        )
        return f"{self._url()}/{account.name}/{container}/{quote(name)}?{sas}"
