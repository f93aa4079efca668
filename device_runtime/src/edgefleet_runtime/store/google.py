"""Access tokens of this device for Google Cloud: by google-auth, whichever way it finds.

That is, in this order: the file that ``GOOGLE_APPLICATION_CREDENTIALS`` names (a key, or workload
identity federation), and the metadata server (``GCE_METADATA_HOST``):
https://cloud.google.com/docs/authentication/application-default-credentials. Rules kept here:

- A token is renewed some minutes before it ends, and after it was refused.
- It is sent over TLS, or to this machine; ``STORAGE_EMULATOR_HOST`` and ``PUBSUB_EMULATOR_HOST``
  are read as Google's own libraries read them.
- Nothing of it is in a message of an error or a log.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    EdgeFleetError,
    MissingExtraError,
    UnavailableError,
)
from edgefleet.protocol.clear_text import address_told
from edgefleet_runtime.store.http import refusal_of

if TYPE_CHECKING:
    import urllib.error
    from collections.abc import Mapping

SCOPES = (
    "https://www.googleapis.com/auth/devstorage.read_write",
    "https://www.googleapis.com/auth/pubsub",
)
MAX_ANSWER = 64 << 10  # bytes of a refusal that are read
_CURE = (
    "set GOOGLE_APPLICATION_CREDENTIALS to a key or federation file, "
    "or give this machine a service account"
)
_NAMED = re.compile(r"\b((?:storage|pubsub)\.[a-zA-Z]+\.[a-zA-Z]+)\b")


class LackingError(AccessDeniedError):
    """Who this device is may not do what it asked for.

    Attributes:
        permission: that it lacks, as Google names it; None where the refusal names none.
    """

    def __init__(self, where: str, permission: str | None) -> None:
        self.permission = permission
        wanted = permission or "the permission"
        cure = f"give the device's account a role with {wanted} there"
        super().__init__(f"{where}: access is denied", cure=cure)


class GoogleTokens:
    """Tokens of whoever this device is. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._credentials: Any = None

    def headers(self) -> Mapping[str, str]:
        """Headers that let a request pass.

        Raises:
            MissingExtraError: google-auth isn't installed.
            AccessDeniedError: nothing says who this device is.
            AccessExpiredError: Google gives it no token any more.
            UnavailableError: whoever gives tokens can't be reached now.
        """
        return {"Authorization": f"Bearer {self._token()}"}

    def forget(self) -> None:
        """A token was refused: the next one is a new one."""
        with self._lock:
            self._credentials = None

    def refused(self, error: urllib.error.HTTPError, where: str) -> EdgeFleetError:
        """What a service's refusal means; a token that it doesn't take is forgotten."""
        said = error.read(MAX_ANSWER).decode("utf-8", "replace")
        if error.code == 401:
            self.forget()
            return AccessExpiredError(f"{where}: the token is not taken", cure=_CURE)
        if error.code == 403:
            named = _NAMED.search(said)
            return LackingError(where, named[1] if named else None)
        return refusal_of(error.code, error.headers, where)

    def _token(self) -> str:
        try:
            import google.auth  # noqa: PLC0415 - an extra, and slow to load
            from google.auth import exceptions  # noqa: PLC0415 - likewise
            from google.auth.transport.requests import Request  # noqa: PLC0415 - likewise
        except ModuleNotFoundError as error:
            raise MissingExtraError(
                f"Google Cloud needs {error.name}, which isn't installed",
                cure="pip install 'edgefleet-runtime[gcs]'",
            ) from error
        request: Any = Request  # it has no types
        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials, _ = google.auth.default(scopes=SCOPES)
                if not self._credentials.valid:
                    self._credentials.refresh(request())
            except exceptions.DefaultCredentialsError as error:
                raise AccessDeniedError(
                    "nothing says who this device is to Google Cloud", cure=_CURE
                ) from error
            except exceptions.TransportError as error:
                raise UnavailableError("whoever gives Google's tokens can't be reached") from error
            except exceptions.GoogleAuthError as error:
                if error.retryable:
                    raise UnavailableError("Google gives no token now") from error
                raise AccessExpiredError("Google gives this device no token", cure=_CURE) from error
            return str(self._credentials.token)


def storage_address() -> str:
    """Where Cloud Storage is, without a slash at the end."""
    return address_told("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com")


def pubsub_address() -> str:
    """Where Pub/Sub is, without a slash at the end."""
    return address_told("PUBSUB_EMULATOR_HOST", "https://pubsub.googleapis.com")
