"""The cluster's API server as a pod asks it: one object written, one object listed and watched.

Rules kept here:

- The token is read from its file for each request, because the kubelet replaces it before it ends;
  so is the server's authority. Neither stands in a message or a log.
- Nothing is asked through a proxy, and no redirect is followed: the token is for this server only.
- What a refusal means is told by its code and the server's own words (``Status``):
  https://kubernetes.io/docs/reference/using-api/api-concepts/.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    ConflictError,
    EdgeFleetError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_runtime.channels.watched import read_secret
from edgefleet_runtime.store.http import cause_of, refusal_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet_runtime.channels.kubernetes.settings import Place

HOST_VARIABLE, PORT_VARIABLE = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
APPLY = "application/apply-patch+yaml"  # JSON is YAML
TOKEN_FILE, CA_FILE = "token", "ca.crt"
TIMEOUT_S = 30.0
MAX_ANSWER_BYTES = 4 << 20  # a ConfigMap holds 1 MiB, and its managed fields
MAX_SAID = 300  # characters of a server's message
KEEPALIVE_S = (30, 10, 3)  # quiet seconds before the first question, between them, how many
_RENEW = "the kubelet renews it: check the pod's projected token volume, its audience and the clock"
_ROLE = "give the pod's service account the runtime's role, and see what admission policies say"
_MEANINGS: dict[int, tuple[type[EdgeFleetError], str | None]] = {
    401: (AccessExpiredError, _RENEW),
    403: (AccessDeniedError, _ROLE),
    404: (UnavailableError, "let the operator run: edgefleet install"),
    409: (ConflictError, None),
    410: (NotFoundError, None),
}


class ApiServer:
    """The API server of the cluster that this pod runs in. Several threads may ask it.

    Args:
        host: its address.
        port: likewise.
        folder: with the pod's token and the authority of the server's certificate.
        timeout_s: longest wait for an answer.
    """

    def __init__(self, host: str, port: int, folder: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._host, self._port = host, port
        self._token, self._ca = folder / TOKEN_FILE, folder / CA_FILE
        self._timeout_s = timeout_s

    @classmethod
    def from_environment(cls, folder: Path) -> ApiServer:
        """The server that the kubelet names.

        Raises:
            ConfigurationError: it names none.
        """
        host, port = os.environ.get(HOST_VARIABLE), os.environ.get(PORT_VARIABLE, "")
        if not host or not (port.isascii() and port.isdecimal()):
            raise ConfigurationError(
                f"{HOST_VARIABLE} or {PORT_VARIABLE} is not set: no kubelet started this process",
                cure="let a DaemonSet run it as a pod, or use another channel",
            )
        return cls(host, int(port), folder)

    def apply(self, place: Place, content: Mapping[str, Any], *, manager: str) -> None:
        """Make a ConfigMap what is given, made or changed, by server-side apply.

        Args:
            place: its namespace and name.
            content: the object without what names it.
            manager: under whose name the fields are ours.

        Raises:
            AccessExpiredError: the token isn't taken.
            AccessDeniedError: the role or an admission policy refuses.
            UnavailableError, ThrottledError: not now.
        """
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            **content,
            "metadata": {
                **content.get("metadata", {}),
                "namespace": place.namespace,
                "name": place.name,
            },
        }
        query = {"fieldManager": manager, "force": "true"}
        path = f"{_maps(place)}/{quote(place.name)}"
        with self._answer("PATCH", path, query, self._timeout_s, msgspec.json.encode(body)):
            return

    def listed(self, place: Place) -> tuple[dict[str, Any] | None, str]:
        """A ConfigMap as it is now, None where there is none, and the version to watch it from.

        Raises:
            EdgeFleetError: as `apply`.
        """
        # A role that names one object grants list and watch with this selector only:
        # https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
        with self._answer("GET", _maps(place), _one(place), self._timeout_s) as (reply, _):
            data = reply.read(MAX_ANSWER_BYTES + 1)
        try:
            found = decoder(dict).decode(data)
            version = str(found["metadata"]["resourceVersion"])
            items = [item for item in found["items"] if item["metadata"]["name"] == place.name]
        except (*UNREADABLE, KeyError, TypeError) as error:
            raise UnavailableError(f"the API server's list makes no sense: {error}") from error
        return (items[0] if items else None), version

    @contextmanager
    def watch(
        self, place: Place, version: str, timeout_s: int
    ) -> Iterator[tuple[Iterator[dict[str, Any]], socket.socket]]:
        """What happens to a ConfigMap after a version, until the server ends it.

        Args:
            place: its namespace and name.
            version: from `listed`, or of the last event.
            timeout_s: after which the server is asked to end it.

        Yields:
            Events as the server tells them, and the socket, which another thread may shut down.

        Raises:
            NotFoundError: the server knows that version no more (410): list again.
            EdgeFleetError: as `apply`, also while events are read.
        """
        query = {
            **_one(place),
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(timeout_s),
        }
        silence_s = timeout_s + self._timeout_s
        with self._answer("GET", _maps(place), query, silence_s) as (reply, open_socket):
            yield _events(reply), open_socket

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        timeout_s: float,
        body: bytes | None = None,
    ) -> Iterator[tuple[http.client.HTTPResponse, socket.socket]]:
        headers = {"Authorization": f"Bearer {self._bearer()}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = APPLY
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=self._timeout_s, context=self._context()
        )
        try:
            connection.connect()
            open_socket = _kept_alive(connection)
            open_socket.settimeout(timeout_s)
            connection.request(method, f"{path}?{urlencode(query)}", body, headers)
            # An answer that ends with its connection takes the socket over: closing the connection
            # leaves it open.
            with connection.getresponse() as reply:
                if reply.status >= 300:
                    raise _refused(reply)
                yield reply, open_socket
        except EdgeFleetError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(f"the API server doesn't answer: {cause_of(error)}") from error
        finally:
            connection.close()

    def _bearer(self) -> str:
        return read_secret(
            self._token, "token for the API server", cure=f"mount one there; {_RENEW}"
        )

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=os.fspath(self._ca))
        except OSError as error:  # ssl.SSLError is one
            raise AccessDeniedError(
                f"no authority of the API server at {self._ca}: {error.strerror or error}",
                cure="mount the ConfigMap kube-root-ca.crt there",
            ) from error


def _maps(place: Place) -> str:
    return f"/api/v1/namespaces/{quote(place.namespace)}/configmaps"


def _one(place: Place) -> dict[str, str]:
    return {"fieldSelector": f"metadata.name={place.name}"}


def _events(reply: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    while line := reply.readline(MAX_ANSWER_BYTES + 1):
        if not line.endswith(b"\n"):
            raise UnavailableError("the API server's watch broke off in the middle of an event")
        try:
            event: dict[str, Any] = decoder(dict).decode(line)
        except UNREADABLE as error:
            raise UnavailableError(f"the API server's event makes no sense: {error}") from error
        yield event


def _kept_alive(connection: http.client.HTTPSConnection) -> socket.socket:
    """The connection's socket, which notices a server that went without a word in a minute."""
    found: socket.socket = connection.sock
    found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    idle, between, count = KEEPALIVE_S
    with suppress(AttributeError, OSError):  # not on every system
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, between)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)
    return found


def _refused(reply: http.client.HTTPResponse) -> EdgeFleetError:
    return refused(reply.status, reply.headers, _message(reply.read(MAX_ANSWER_BYTES)))


def refused(status: int, headers: Any, message: str) -> EdgeFleetError:  # noqa: ANN401 - http.client's
    """What a refusal of the API server means, in its own words."""
    said = f"the API server answers {status}: {message or 'no reason'}"
    if status in {429, 503}:
        return refusal_of(status, headers, "the API server")
    if status in _MEANINGS:
        kind, cure = _MEANINGS[status]
        return kind(said, cure=cure)
    return UnavailableError(said, retryable=status >= 500)


def _message(data: bytes) -> str:
    try:
        return str(decoder(dict).decode(data).get("message", ""))[:MAX_SAID]
    except UNREADABLE:
        return data[:MAX_SAID].decode(errors="replace")
