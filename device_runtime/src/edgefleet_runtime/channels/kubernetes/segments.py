"""A device's files in its own repository of an OCI registry: each an artifact of one layer.

Rules kept here:

- A blob that is there isn't sent again; a manifest is written last, so that what a tag leads to is
  whole. The same file again changes nothing.
- A registry that would redirect a download of a blob has it: nothing is asked of the other place.
- Credentials are the device's own where it has some. They are shown to the registry only, and a
  place that it names for an upload counts only where it is the registry's own.
- Blobs go in one request (POST, then PUT): segments have a few megabytes, and every registry takes
  that (distribution-spec 1.1, "Pushing a blob monolithically").
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

from edgefleet.errors import AccessDeniedError, ConfigurationError, EdgeFleetError, UnavailableError
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.oci import Repository, read_repository
from edgefleet.protocol.tags import (
    EMPTY_DATA,
    EMPTY_DIGEST,
    MANIFEST,
    device_repository,
    manifest_of,
    tag_of,
)
from edgefleet_runtime.store.bandwidth import open_plain
from edgefleet_runtime.store.http import TIMEOUT_S, NoRedirects, cause_of, refusal_of
from edgefleet_runtime.store.oci import RegistryAccess
from edgefleet_runtime.store.trust import Verified

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import Message
    from pathlib import Path

_BYTES = "application/octet-stream"
_TELLING = frozenset({301, 302, 303, 307, 308, 404})  # whether a blob is there
_ALLOW = "let the device's credentials push to its repository"


class _Answer(NamedTuple):
    status: int
    headers: Message


class OciUploads:
    """Writes files of one device.

    Args:
        address: ``oci://HOST/REPOSITORY``, below which each device has a repository.
        device: its name.
        credentials: file of docker's form; None for the one that reads models, too.

    Raises:
        ConfigurationError: address and name make no repository.
    """

    def __init__(self, address: str, device: str, credentials: Path | None) -> None:
        try:
            of_all = read_repository(address)
            name = device_repository(of_all.name, device)
        except EdgeFleetError as error:
            raise ConfigurationError(error.message, cure=error.cure) from error
        self._repository = Repository(of_all.host, name)
        self._opener = urllib.request.build_opener(NoRedirects(), Verified())
        self._access = RegistryAccess(self._repository, credentials, self._opener, TIMEOUT_S)

    def put(self, name: str, path: Path, opened: Callable[[Path], BinaryIO] = open_plain) -> None:
        """Write a file; see `uploads.Uploads`."""
        digest, size = digest_of_file(path)
        self._blob(EMPTY_DIGEST, len(EMPTY_DATA), lambda: BytesIO(EMPTY_DATA))
        self._blob(digest, size, lambda: opened(path))
        manifest = manifest_of(name, digest, size)
        url = f"{self._repository.url}/manifests/{tag_of(name)}"
        headers = {"Content-Type": MANIFEST, "Content-Length": str(len(manifest))}
        self._ask("PUT", url, headers, lambda: BytesIO(manifest))

    def _blob(self, digest: str, size: int, content: Callable[[], BinaryIO]) -> None:
        base = f"{self._repository.url}/blobs"
        if self._is_there(f"{base}/{digest}"):
            return
        begun = self._ask("POST", f"{base}/uploads/", {"Content-Length": "0"}, None)
        place = urljoin(f"{base}/uploads/", begun.headers.get("Location", ""))
        here, there = urlsplit(base), urlsplit(place)
        if (there.scheme, there.netloc) != (here.scheme, here.netloc):
            raise UnavailableError(f"{here.netloc} sends uploads to another host", retryable=False)
        url = f"{place}{'&' if there.query else '?'}digest={quote(digest)}"
        headers = {"Content-Type": _BYTES, "Content-Length": str(size)}
        self._ask("PUT", url, headers, content)

    def _is_there(self, url: str) -> bool:
        return self._ask("HEAD", url, {}, None, meant=_TELLING).status != 404

    def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Callable[[], BinaryIO] | None,
        *,
        meant: frozenset[int] = frozenset(),
    ) -> _Answer:
        where = f"{self._repository.host}, {self._repository.name}"
        renewed = False
        while True:
            shown = self._access.shown
            try:
                return self._once(method, url, headers, content, shown)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code in meant:
                        return _Answer(error.code, error.headers)
                    asked = ", ".join(error.headers.get_all("WWW-Authenticate", []))
                    if error.code == 401 and not renewed:
                        renewed = self._access.renew(asked, shown, where)
                        if renewed:
                            continue
                    raise _refusal(error, where) from None
            except (OSError, http.client.HTTPException) as error:
                raise UnavailableError(f"{where}: {cause_of(error)}") from error

    def _once(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Callable[[], BinaryIO] | None,
        shown: str | None,
    ) -> _Answer:
        body = None if content is None else content()
        try:
            request = urllib.request.Request(url, body, dict(headers), method=method)  # noqa: S310 - the repository's own
            if shown is not None:
                request.add_unredirected_header("Authorization", shown)
            with self._opener.open(request, timeout=TIMEOUT_S) as reply:
                return _Answer(reply.status, reply.headers)
        finally:
            if body is not None:
                body.close()


def _refusal(error: urllib.error.HTTPError, where: str) -> EdgeFleetError:
    if error.code in {401, 403}:
        return AccessDeniedError(f"{where}: HTTP {error.code}", cure=_ALLOW)
    if error.code == 404:
        return UnavailableError(f"{where}: HTTP 404; some registries want a repository to be made")
    return refusal_of(error.code, error.headers, where)
