"""Blobs in a repository of an OCI registry: ``oci://HOST[:PORT]/REPOSITORY``.

Rules kept here:

- Requests are those of `edgefleet_runtime.store.http`: ranges, verified TLS, no header of access to
  any other host than the registry's. A registry on loopback is spoken to in plain HTTP.
- A token is asked for when the registry challenges, in the middle of a download, too. Credentials
  are read anew each time, because a mounted secret is renewed in place; they are in no message.
- A download that the registry redirects, and that is refused over there, is asked for at the
  registry once more: signed addresses end.
- What is no blob of the repository may be one of its manifests: registries keep them apart.

Specifications: see `edgefleet.protocol.oci`.
"""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    EdgeFleetError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.protocol.bundle import INDEX_MEDIA_TYPE, MANIFEST_MEDIA_TYPE
from edgefleet.protocol.digest import check_digest, short
from edgefleet.protocol.oci import (
    Credentials,
    Helper,
    TokenRequest,
    answer_to,
    credentials_in,
    read_challenge,
    read_repository,
    read_token,
)
from edgefleet_runtime.store.http import TIMEOUT_S, HttpSource, cause_of, refusal_of

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from edgefleet.protocol.oci import Repository
    from edgefleet_runtime.store.sources import BlobStream

CREDENTIALS_VARIABLE = "EDGEFLEET_REGISTRY_CREDENTIALS"
"""Names the file with credentials, or the folder that a Secret with it is mounted at."""
MOUNTED = Path("/var/run/secrets/edgefleet-registry")
_NAMES = ("config.json", ".dockerconfigjson")  # docker's, and the key of Kubernetes' Secrets
MAX_CONFIG_BYTES = 1 << 20
MAX_TOKEN_BYTES = 1 << 20
RENEW = "renew the pull credentials of the devices"


def mounted_credentials() -> Path | None:
    """The file that this machine was given to read registries with; None where there is none."""
    named = os.environ.get(CREDENTIALS_VARIABLE)
    places = [Path(named)] if named else [MOUNTED, Path(os.environ.get("DOCKER_CONFIG", MOUNTED))]
    for place in places:
        for path in (place, *(place / name for name in _NAMES)):
            if path.is_file():
                return path
    return None


class OciSource(HttpSource):
    """Blobs and manifests of one repository.

    Args:
        address: as the pointer writes it.
        credentials: file of docker's form; None for the one that `mounted_credentials` finds.
        origin: where the registry's API answers, where that isn't what the address says.
        context: TLS settings; None verifies against the system's certificates.
        timeout_s: longest wait for the next byte.

    Raises:
        InvalidInputError: the address names no repository.
    """

    def __init__(
        self,
        address: str,
        *,
        credentials: Path | None = None,
        origin: str | None = None,
        context: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._repository = read_repository(address)
        url = f"{origin or self._repository.origin}/v2/{self._repository.name}"
        super().__init__(
            url, headers=self._shown, context=context, timeout_s=timeout_s, refusal=self._means
        )
        self.address = address
        self._access = RegistryAccess(self._repository, credentials, self._opener, timeout_s)

    def open(self, digest: str, offset: int) -> BlobStream:
        where = f"{self._repository.host}, blob {short(check_digest(digest))}"
        try:
            return self._ask(f"{self._base}/blobs/{digest}", offset, where)
        except NotFoundError as missing:
            try:
                return self._ask(f"{self._base}/manifests/{digest}", 0, where)
            except NotFoundError:
                raise missing from None

    def _ask(self, url: str, offset: int, where: str) -> BlobStream:
        renewed = resolved = False
        while True:
            shown = self._access.shown
            try:
                return self._get(url, offset, where)
            except _ChallengedError as asked:
                if renewed or not self._access.renew(asked.header, shown, where):
                    raise _refused(where, shown) from asked
                renewed = True
            except _RefusedElsewhereError:
                if resolved:
                    raise
                resolved = True

    def _shown(self, url: str) -> Mapping[str, str]:
        accept = {"Accept": f"{INDEX_MEDIA_TYPE}, {MANIFEST_MEDIA_TYPE}"}
        shown = self._access.shown
        return (accept if "/manifests/" in url else {}) | (
            {} if shown is None else {"Authorization": shown}
        )

    def _means(self, error: urllib.error.HTTPError, where: str) -> EdgeFleetError:
        here = urlsplit(error.url or "").netloc == urlsplit(self._base).netloc
        if error.code == 401 and here:
            return _ChallengedError(
                f"{where}: HTTP 401",
                header=", ".join(error.headers.get_all("WWW-Authenticate", [])),
            )
        if error.code in (401, 403) and not here:
            elsewhere = urlsplit(error.url or "").netloc
            return _RefusedElsewhereError(
                f"{where}: the registry gave it away, but {elsewhere} refused it: HTTP {error.code}"
            )
        return refusal_of(error.code, error.headers, where)


class _ChallengedError(AccessDeniedError):
    """The registry wants to be shown something."""

    def __init__(self, message: str, *, header: str) -> None:
        super().__init__(message)
        self.header = header


class _RefusedElsewhereError(UnavailableError):
    """Whoever the registry redirected to refused: its address had ended, or its clock is wrong."""


def _refused(where: str, shown: str | None) -> EdgeFleetError:
    """What it means that the registry challenges again, by what it was shown."""
    if shown is None:
        cure = f"give the device credentials: mount a pull secret at {MOUNTED}"
        return AccessDeniedError(f"{where}: the registry wants credentials", cure=cure)
    if shown.startswith("Basic "):
        return AccessExpiredError(f"{where}: the credentials are not taken", cure=RENEW)
    cure = "let the device's credentials pull from the repository"
    return AccessDeniedError(f"{where}: a new token is refused, too", cure=cure)


class RegistryAccess:
    """What a registry is shown, by whichever thread asks it.

    Args:
        repository: that is read.
        path: of the file with credentials; None for the one that is mounted.
        opener: that sends requests.
        timeout_s: longest wait for an answer.
    """

    def __init__(
        self,
        repository: Repository,
        path: Path | None,
        opener: urllib.request.OpenerDirector,
        timeout_s: float,
    ) -> None:
        self.shown: str | None = None
        """Value of the next request's ``Authorization``; None for nothing."""
        self._repository, self._path = repository, path
        self._opener, self._timeout_s = opener, timeout_s
        self._lock = threading.Lock()

    def renew(self, header: str, before: str | None, where: str) -> bool:
        """Have something new to show.

        Args:
            header: of the challenge.
            before: what was shown when it came; another thread may have renewed it since.
            where: names what was asked for, in errors.

        Returns:
            False where there is nothing that could be shown.

        Raises:
            AccessExpiredError: the credentials are not taken.
            AccessDeniedError: there are none that can be used.
            UnavailableError: no token could be got now.
        """
        with self._lock:
            if self.shown != before:
                return True
            challenge, credentials = read_challenge(header), self._credentials(where)
            if challenge is None:
                return False
            shown = answer_to(challenge, credentials, self._repository)
            if isinstance(shown, TokenRequest):
                known = credentials is not None
                shown = f"Bearer {self._token(shown, where, known=known)}"
            if shown is not None and shown == before:
                raise AccessExpiredError(f"{where}: the credentials are not taken", cure=RENEW)
            self.shown = shown
            return shown is not None

    def _credentials(self, where: str) -> Credentials | None:
        path = self._path or mounted_credentials()
        if path is None:
            return None
        try:
            with path.open("rb") as stream:
                found = credentials_in(stream.read(MAX_CONFIG_BYTES), self._repository)
        except OSError as error:
            raise AccessDeniedError(
                f"{where}: {path} can't be read: {error.strerror}", cure=RENEW
            ) from error
        except ConfigurationError as error:
            raise AccessDeniedError(f"{where}: {path}: {error.message}", cure=error.cure) from None
        if isinstance(found, Helper):
            raise AccessDeniedError(
                f"{where}: {path} names a credential helper, and devices run none",
                cure="put a user and a password or token for the registry into the file",
            )
        return found

    def _token(self, asked: TokenRequest, where: str, *, known: bool) -> str:
        """The token that is asked for; ``known`` tells whether credentials were shown for it."""
        request = urllib.request.Request(asked.url, asked.body)  # noqa: S310 - checked with it
        for name, value in asked.headers.items():
            request.add_unredirected_header(name, value)
        said = f"{where}: a token from {urlsplit(asked.url).netloc}"
        try:
            with self._opener.open(request, timeout=self._timeout_s) as reply:
                return read_token(reply.read(MAX_TOKEN_BYTES)).value
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (400, 401, 403) and known:
                    raise AccessExpiredError(
                        f"{said}: the credentials are not taken (HTTP {error.code})", cure=RENEW
                    ) from None
                raise refusal_of(error.code, error.headers, said) from None
        except EdgeFleetError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"{said}: {cause_of(error)}") from error
