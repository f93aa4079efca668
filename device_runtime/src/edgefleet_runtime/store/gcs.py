"""Blobs in Cloud Storage: the source of ``gs://BUCKET/PREFIX``.

Requests are those of the runtime's own HTTP source, over Cloud Storage's XML API, which has an
object's name in its path and knows ranges
(https://cloud.google.com/storage/docs/xml-api/get-object-download).
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from edgefleet.errors import AccessExpiredError, InvalidInputError
from edgefleet_runtime.store.google import GoogleTokens, storage_address
from edgefleet_runtime.store.http import HttpSource

if TYPE_CHECKING:
    from edgefleet_runtime.store.sources import BlobStream


class GcsSource(HttpSource):
    """Blobs below a ``gs://`` address.

    Args:
        address: as the pointer writes it.
        tokens: of this device; None for those that google-auth finds.

    Raises:
        InvalidInputError: it names no bucket.
    """

    def __init__(self, address: str, tokens: GoogleTokens | None = None) -> None:
        given = tokens or GoogleTokens()
        super().__init__(
            object_url(address), headers=lambda _: given.headers(), refusal=given.refused
        )
        self.address = address

    def open(self, digest: str, offset: int) -> BlobStream:
        try:
            return super().open(digest, offset)
        except AccessExpiredError:
            return super().open(digest, offset)  # a token that was refused is a new one now


def object_url(address: str, *below: str) -> str:
    """Where Cloud Storage has what lies at a ``gs://`` address, or below it.

    Raises:
        InvalidInputError: it names no bucket.
    """
    parts = urlsplit(address)
    if parts.scheme != "gs" or not parts.netloc:
        raise InvalidInputError(f"{address!r} names no bucket: gs://BUCKET/PREFIX does")
    names = [parts.netloc, *filter(None, [parts.path.strip("/")]), *below]
    return "/".join([storage_address(), *map(quote, names)])
