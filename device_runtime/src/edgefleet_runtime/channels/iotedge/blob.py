"""Blob storage as a device needs it: read the fleet's blobs, write below its own prefix.

Rules kept here:

- A shared access signature stands in the query of a request, and in no message or log.
- A blob is written once: there already means done, because the same name has the same content.
- What the service refuses is told by its own codes:
  https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes. One answer, 403
  AuthenticationFailed, stands for a signature that ended, one that isn't valid yet, and one whose
  stored access policy is gone: in each case somebody must renew it.
- The device's clock decides nothing until a server's has been seen.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    EdgeFleetError,
    UnavailableError,
)
from edgefleet_runtime.store.bandwidth import open_plain
from edgefleet_runtime.store.http import TIMEOUT_S, HttpSource, put_opener, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from email.message import Message
    from pathlib import Path

    from edgefleet_runtime.channels.iotedge.twin import ReadAccess, UploadAccess

ASK_AGAIN_S = 300.0  # after a refusal
RENEW = "renew the group's access: edgefleet access renew"
_THERE = {"BlobAlreadyExists", "UnauthorizedBlobOverwrite", "ConditionNotMet"}
_SERVICES = (
    ".blob.core.windows.net",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.chinacloudapi.cn",
)


class Ended:
    """Which signatures the service takes no more, and what time it is there.

    A refused one counts as ended for a while only: a policy behind it may be prolonged, and one
    that isn't valid yet becomes so.
    """

    def __init__(self) -> None:
        self._refused: dict[str, float] = {}
        self._ahead_s: float | None = None

    def heard(self, headers: Message) -> None:
        """Learn the time from an answer's ``Date``."""
        said = headers.get("Date")
        if said is None:
            return
        with contextlib.suppress(ValueError):
            self._ahead_s = email.utils.parsedate_to_datetime(said).timestamp() - time.time()

    def refused(self, query: str) -> None:
        """The service doesn't take a signature now."""
        now = time.monotonic()
        self._refused = {key: at for key, at in self._refused.items() if now - at < ASK_AGAIN_S}
        self._refused[query] = now

    def knows(self, query: str, expires: datetime | None) -> bool:
        """Whether a signature was refused lately, or is certainly past its time (UTC)."""
        at = self._refused.get(query)
        if at is not None and time.monotonic() - at < ASK_AGAIN_S:
            return True
        if expires is None or self._ahead_s is None:
            return False
        zoned = expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)
        return zoned.timestamp() < time.time() + self._ahead_s


def meant_for(access: ReadAccess, address: str, upload: UploadAccess | None) -> bool:
    """Whether a signature may be shown to whoever serves an address.

    It may where the access says so; where it says nothing, to Azure's own storage, and to the host
    that the device writes to.
    """
    if access.at:
        return f"{address.rstrip('/')}/".startswith(f"{access.at.rstrip('/')}/")
    parts = urlsplit(address)
    own = upload is not None and parts.netloc == urlsplit(upload.address).netloc
    return parts.scheme == "https" and (own or (parts.hostname or "").endswith(_SERVICES))


def source(address: str, query: Callable[[], str], ended: Ended) -> HttpSource:
    """Blobs below an address.

    Args:
        address: as the pointer writes it.
        query: gives the signature that holds now.
        ended: learns what the service says of it.
    """
    shown = [""]

    def asked() -> str:
        shown[0] = query()
        return shown[0]

    def refusal(error: urllib.error.HTTPError, where: str) -> EdgeFleetError:
        return _refusal(error, where, shown[0], ended)

    return HttpSource(address, query=asked, refusal=refusal)


def put(
    access: UploadAccess,
    name: str,
    path: Path,
    ended: Ended,
    opened: Callable[[Path], BinaryIO] = open_plain,
) -> None:
    """Write a file as a new blob below the device's prefix; no error where it is there.

    Args:
        access: to write there.
        name: below the prefix.
        path: the file.
        ended: which signatures are taken no more.
        opened: opens it for reading.

    Raises:
        AccessDeniedError: the signature doesn't allow it.
        AccessExpiredError: it has ended.
        UnavailableError, ThrottledError: not now.
    """
    url = f"{access.address.rstrip('/')}/{quote(name)}"
    headers = {
        "Content-Length": str(path.stat().st_size),
        "Content-Type": "application/octet-stream",
        "If-None-Match": "*",
        "x-ms-blob-type": "BlockBlob",
    }
    where = f"{urlsplit(url).netloc}, {name}"
    with opened(path) as stream:
        request = urllib.request.Request(  # noqa: S310 - checked when it was read
            f"{url}?{access.write}", stream, headers, method="PUT"
        )
        try:
            with put_opener().open(request, timeout=TIMEOUT_S) as reply:
                ended.heard(reply.headers)
        except urllib.error.HTTPError as error:
            with error:
                if _code(error) not in _THERE:
                    raise _refusal(error, where, access.write, ended) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or type(error).__name__
            raise UnavailableError(f"{where}: {reason}") from error


def _code(error: urllib.error.HTTPError) -> str:
    return str(error.headers.get("x-ms-error-code", ""))


def _refusal(error: urllib.error.HTTPError, where: str, query: str, ended: Ended) -> EdgeFleetError:
    ended.heard(error.headers)
    code = _code(error)
    if code == "AuthenticationFailed":
        ended.refused(query)
        return AccessExpiredError(f"{where}: access has ended ({code})", cure=RENEW)
    if error.code == 403:
        said = code or "HTTP 403"
        return AccessDeniedError(f"{where}: {said}", cure="give the device's group access again")
    return refusal_of(error.code, error.headers, where)
