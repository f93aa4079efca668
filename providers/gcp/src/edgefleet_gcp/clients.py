"""Google's clients, made in one place: who we are, where the services are, what is tried again.

Credentials are Application Default Credentials
(https://cloud.google.com/docs/authentication/application-default-credentials), never a setting.
Addresses are Google's own, or what its libraries read: ``STORAGE_EMULATOR_HOST``, an address, and
``PUBSUB_EMULATOR_HOST``, a host and port that speak plain HTTP.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import google.auth
from google.api_core.exceptions import from_http_response
from google.auth.credentials import Credentials
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage

from edgefleet.errors import ConfigurationError
from edgefleet.interfaces.answers import read_answer
from edgefleet.protocol.clear_text import address_told
from edgefleet_gcp.retries import Retries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests

    from edgefleet_gcp.settings import GcpSettings

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
STORAGE = "https://storage.googleapis.com"
PUBSUB = "https://pubsub.googleapis.com"
TIMEOUT_S = (10.0, 60.0)  # to connect; without a byte


_refused: Any = from_http_response  # it has no types


class Clients:
    """Clients of one profile, made when they are first asked for. Safe to share between threads.

    Args:
        settings: bucket, project, tries.

    Attributes:
        retries: repeats a call that may be made twice.
    """

    def __init__(self, settings: GcpSettings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._found: tuple[Credentials, str | None] | None = None
        self._session: AuthorizedSession | None = None
        self._storage: Any = None
        self.retries = Retries(settings.max_attempts)

    @property
    def project(self) -> str:
        """The project that topic and subscription lie in.

        Raises:
            ConfigurationError: neither the profile nor google-auth knows one.
        """
        project = self._settings.project or self._default()[1]
        if project is None:
            raise ConfigurationError(
                "which project of Google Cloud isn't known", cure="set `project` in the profile"
            )
        return project

    @property
    def bucket(self) -> Any:  # noqa: ANN401 - google-cloud-storage has no types
        """The fleet's bucket, as google-cloud-storage has it; nothing is asked of it yet."""
        with self._lock:
            if self._storage is None:
                project = self._settings.project or self._default()[1] or ""
                self._storage = storage.Client(project=project, credentials=self._default()[0])
            return self._storage.bucket(self._settings.bucket)

    def object_url(self, name: str) -> str:
        """Where the fleet's bucket has an object's resource in the JSON API."""
        bucket, key = quote(self._settings.bucket, safe=""), quote(name, safe="")
        return f"{storage_url()}/storage/v1/b/{bucket}/o/{key}"

    def call(
        self,
        method: str,
        url: str,
        *,
        json: Mapping[str, Any] | None = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """What a service answers, which may be no redirect and no refusal.

        A call that may be made twice is made through `retries`.

        Raises:
            GoogleAPICallError: the service refuses.
        """
        session: Any = self._authorized()  # its methods have no types
        answer: requests.Response = session.request(
            method,
            url,
            data=data,
            json=json,
            headers=dict(headers or {}),
            timeout=TIMEOUT_S,
            stream=stream,
            allow_redirects=False,
        )
        if answer.status_code >= 400:
            try:
                refused: Exception = _refused(answer)
            finally:
                answer.close()
            raise refused
        return answer

    def asked(self, call: Callable[[], requests.Response]) -> dict[str, Any]:
        """The JSON object that a call is answered, made again where that may help.

        Raises:
            GoogleAPICallError: the service refuses.
            UnavailableError: something else answers.
        """
        return read_answer(self.retries(call)(), dict[str, Any])

    def close(self) -> None:
        """Close every connection; a client asked for afterwards is a new one."""
        with self._lock:
            if self._session is not None:
                cast("requests.Session", self._session).close()
            if self._storage is not None:
                self._storage.close()
            self._session = self._storage = None

    def _default(self) -> tuple[Credentials, str | None]:
        with self._lock:
            if self._found is None:
                found, project = google.auth.default(scopes=[SCOPE])
                own = found if storage_url() == STORAGE else EmulatorCredentials(found)
                self._found = own, project
            return self._found

    def _authorized(self) -> AuthorizedSession:
        with self._lock:
            if self._session is None:
                self._session = AuthorizedSession(self._default()[0])  # type: ignore[no-untyped-call]
            return self._session


class EmulatorCredentials(Credentials):
    """Somebody's tokens, and nothing else of them: Google itself is asked nothing.

    google-auth asks Google beside each first call which locations an account is allowed.

    Args:
        inner: gives tokens.
    """

    def __init__(self, inner: Credentials) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner = inner

    def refresh(self, request: object) -> None:
        """Get a new token."""
        inner: Any = self._inner  # its methods have no types
        inner.refresh(request)
        self.token, self.expiry = inner.token, inner.expiry


def storage_url() -> str:
    """Where Cloud Storage is, without a slash at the end."""
    return address_told("STORAGE_EMULATOR_HOST", STORAGE)


def pubsub_url() -> str:
    """Where Pub/Sub is, without a slash at the end."""
    return address_told("PUBSUB_EMULATOR_HOST", PUBSUB)
