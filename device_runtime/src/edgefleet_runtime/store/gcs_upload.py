"""Files of a device in Cloud Storage, below its own folder: ``PREFIX/devices/DEVICE/…``.

Rules kept here:

- An object is created, never replaced (``x-goog-if-generation-match: 0``): what is there already
  is done, because the same name has the same content. A device's role needs no more than
  ``storage.objects.create`` on its folder.
- Cloud Storage compares the bytes with their MD5 before it shows them
  (https://cloud.google.com/storage/docs/xml-api/put-object-upload).
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from edgefleet.errors import UnavailableError
from edgefleet.protocol.names import check_name, check_path
from edgefleet_runtime.store.bandwidth import open_plain
from edgefleet_runtime.store.gcs import object_url
from edgefleet_runtime.store.google import GoogleTokens, LackingError
from edgefleet_runtime.store.http import TIMEOUT_S, cause_of, put_opener

if TYPE_CHECKING:
    from collections.abc import Callable
    from io import BufferedReader
    from pathlib import Path

_REPLACING = "storage.objects.delete"  # what whoever may only create lacks, where an object is


class GcsUploads:
    """Writes below a device's own folder.

    Args:
        address: the fleet's, ``gs://BUCKET/PREFIX``.
        device: the device's name.
        tokens: of this device; None for those that google-auth finds.

    Raises:
        InvalidInputError: the address names no bucket.
    """

    def __init__(self, address: str, device: str, tokens: GoogleTokens | None = None) -> None:
        self._base = (address, "devices", check_name("device", device))
        self._tokens = tokens or GoogleTokens()
        object_url(*self._base)

    def put(self, name: str, path: Path, opened: Callable[[Path], BinaryIO] = open_plain) -> None:
        """Write a file under a name; no error where it is there.

        Args:
            name: below the device's folder.
            path: the file.
            opened: opens it for reading.

        Raises:
            AccessDeniedError: this device may not write there.
            AccessExpiredError: it gets no token any more, or that isn't taken.
            UnavailableError, ThrottledError: not now.
        """
        below = check_path(name, what="name below the device's folder")
        url = object_url(*self._base, below)
        where = f"{urlsplit(url).netloc}, {below}"
        with path.open("rb") as whole:
            digest = _md5(whole)
        with opened(path) as stream:
            headers = {
                **self._tokens.headers(),
                "Content-Length": str(path.stat().st_size),
                "Content-MD5": digest,
                "Content-Type": "application/octet-stream",
                "x-goog-if-generation-match": "0",
            }
            request = urllib.request.Request(url, stream, headers, method="PUT")  # noqa: S310 - https, or this machine
            try:
                with put_opener().open(request, timeout=TIMEOUT_S):
                    return
            except urllib.error.HTTPError as error:
                with error:
                    if error.code == 412:
                        return
                    refused = self._tokens.refused(error, where)
                if isinstance(refused, LackingError) and refused.permission == _REPLACING:
                    return
                raise refused from error
            except (OSError, http.client.HTTPException) as error:
                raise UnavailableError(f"{where}: {cause_of(error)}") from error


def _md5(stream: BufferedReader) -> str:
    digest = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).digest()
    return base64.b64encode(digest).decode("ascii")
