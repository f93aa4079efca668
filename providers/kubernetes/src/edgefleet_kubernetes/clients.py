"""The one place that makes clients of Kubernetes: contexts, credentials, retries, timeouts.

Rules kept here:

- Who calls is the kubeconfig's affair, or the service account's of the pod that this runs in.
- Each call is repeated by the rules of `retries`.
- lightkube is imported when a client is first asked for. See ADR 22 for why it is lightkube.
"""

# ruff: noqa: PLC0415 - a client's library is imported with the client

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from edgefleet.errors import ProfileError, UnavailableError
from edgefleet.protocol.typed import UNREADABLE, decoder
from edgefleet_kubernetes.kubeconfig import load_kubeconfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import httpx2
    from lightkube import KubeConfig, SingleConfig

    from edgefleet_kubernetes.settings import KubernetesSettings

CONNECT_TIMEOUT_S = 10.0
_T = TypeVar("_T")


class Clients:
    """Clients of each cluster, made when they are first asked for. Safe to share between threads.

    Args:
        settings: kubeconfig, contexts, retries and timeouts.
        base: folder that a relative kubeconfig starts from; None for the current one.
    """

    def __init__(self, settings: KubernetesSettings, *, base: Path | None = None) -> None:
        self._settings, self._base = settings, base
        self._lock = threading.RLock()
        self._config: KubeConfig | None = None
        self._http: dict[str, httpx2.Client] = {}
        self._auths: dict[str, httpx2.Auth | None] = {}

    @property
    def contexts(self) -> tuple[str, ...]:
        """Contexts of the profile, or the kubeconfig's current one.

        Raises:
            ProfileError: there is none.
        """
        if self._settings.contexts:
            return self._settings.contexts
        current = self._kubeconfig.current_context
        if not current:
            raise ProfileError(
                "the kubeconfig has no current context",
                cure="set `contexts` in the profile's table [… .kubernetes], or choose one: "
                "kubectl config use-context NAME",
            )
        return (str(current),)

    def http(self, context: str | None = None) -> httpx2.Client:
        """What speaks HTTP with a cluster's API server, for what lightkube has no call for.

        Args:
            context: of the kubeconfig; None for the first of `contexts`.

        Raises:
            ProfileError: there is no such context.
        """
        import httpx2

        name = context or self.contexts[0]
        with self._lock:
            if name not in self._http:
                self._http[name] = httpx2.Client(
                    base_url=self._single(name).cluster.server,
                    auth=self._auth(name),
                    timeout=self._timeout,
                    transport=self._transport(name),
                )
            return self._http[name]

    def call(
        self,
        method: str,
        path: str,
        *,
        document: Any = None,  # noqa: ANN401 - JSON
        query: Mapping[str, str] | None = None,
        media: str = "application/json",
        accept: str = "application/json",
        context: str | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """One call of a cluster's API.

        Args:
            method: of HTTP.
            path: of the address, such as ``api/v1/namespaces``.
            document: the body; None for none.
            query: parameters.
            media: type of the body.
            accept: type of the answer, which is JSON.
            context: of the kubeconfig; None for the first of `contexts`.

        Raises:
            lightkube.ApiError: the API server says no.
            UnavailableError: what answers is none.
        """
        headers = {"Accept": accept}
        body = None
        if document is not None:
            body, headers["Content-Type"] = json.dumps(document).encode(), media
        response = self.http(context).request(
            method, _address(path, query), content=body, headers=headers
        )
        _raise_for(response)
        found = _read(response, dict[str, Any])
        if found is None:
            raise UnavailableError(
                f"{response.url.host} answered {method} /{path.lstrip('/')} with no JSON object, "
                "which no API server does",
                cure="check `server` of the kubeconfig, and what stands between",
            )
        return found

    def stream(
        self,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        context: str | None = None,
    ) -> AbstractContextManager[Iterator[str]]:
        """Lines of an answer, as they come and for as long as they come: a watch, or a log.

        Args:
            path: of the address.
            query: parameters.
            context: of the kubeconfig; None for the first of `contexts`.

        Raises:
            lightkube.ApiError: the API server says no.
            httpx2.TransportError: the connection broke.
        """
        from contextlib import contextmanager

        import httpx2

        @contextmanager
        def lines() -> Iterator[Iterator[str]]:
            http = self.http(context)
            timeout = httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S)
            request = http.build_request("GET", _address(path, query), timeout=timeout)
            response = http.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                    _raise_for(response)
                yield response.iter_lines()
            finally:
                response.close()

        return lines()

    def close(self) -> None:
        """Close every connection; may be called twice."""
        with self._lock:
            for http in self._http.values():
                http.close()
            self._http = {}

    # ------------------------------------------------------------------------------------ own

    @property
    def _kubeconfig(self) -> KubeConfig:
        with self._lock:
            if self._config is None:
                given = self._settings.kubeconfig
                if given is not None and self._base is not None:
                    given = self._base / given
                self._config = load_kubeconfig(given)
            return self._config

    @property
    def _timeout(self) -> httpx2.Timeout:
        import httpx2

        return httpx2.Timeout(self._settings.timeout_s, connect=CONNECT_TIMEOUT_S)

    def _single(self, name: str) -> SingleConfig:
        from lightkube.core.exceptions import ConfigError

        config = self._kubeconfig
        try:
            found = config.get(name)
        except (ConfigError, KeyError) as error:
            known = ", ".join(sorted(config.contexts)) or "none"
            raise ProfileError(
                f"the kubeconfig has no whole context {name!r}; it has {known}",
                cure="check `contexts` of the profile: kubectl config get-contexts",
            ) from error
        if found is None or found.user is None:
            raise ProfileError(
                f"context {name!r} of the kubeconfig names no user",
                cure="name one: kubectl config set-context NAME --user=USER",
            )
        return found

    def _auth(self, name: str) -> httpx2.Auth | None:
        """Credentials of a context's user; clients of one context share them."""
        from lightkube.config.client_adapter import user_auth

        with self._lock:
            if name not in self._auths:
                user = self._single(name).user
                if user is not None and user.exec is not None and not user.token:
                    from edgefleet_kubernetes.exec_credentials import ExecCredentials

                    self._auths[name] = ExecCredentials(user.exec)
                else:
                    self._auths[name] = user_auth(user)
            return self._auths[name]

    def _transport(self, name: str) -> httpx2.BaseTransport:
        import httpx2
        from lightkube.config.client_adapter import verify_cluster

        from edgefleet_kubernetes.retries import Retrying

        config = self._single(name)
        if config.user is None:
            raise ProfileError(f"context {name!r} of the kubeconfig names no user")
        verify = verify_cluster(config.cluster, config.user, config.abs_file)
        return Retrying(httpx2.HTTPTransport(verify=verify), self._settings.max_attempts)


def _address(path: str, query: Mapping[str, str] | None) -> str:
    # Without a slash in front: a server's own path, as Rancher has, would be dropped.
    found = path.lstrip("/")
    return f"{found}?{urlencode(query)}" if query else found


def _read(response: httpx2.Response, kind: type[_T]) -> _T | None:
    """What was answered in JSON; None for anything else."""
    if not response.headers.get("Content-Type", "").startswith("application/json"):
        return None
    try:
        return decoder(kind).decode(response.content)
    except UNREADABLE:
        return None


def _raise_for(response: httpx2.Response) -> None:
    """Nothing where an answer says yes.

    Raises:
        lightkube.ApiError: it says no, in Kubernetes' words.
        httpx2.HTTPStatusError: it says no in others.
    """
    import httpx2
    from lightkube import ApiError
    from lightkube.models.meta_v1 import Status

    try:
        response.raise_for_status()
    except httpx2.HTTPStatusError as error:
        said = _read(response, Status)
        if said is not None:
            raise ApiError(request=response.request, status=said) from error
        if response.status_code != 404:
            raise
        # What is no API at all is answered in plain text, which client-go words so, too.
        told = "the server could not find the requested resource"
        status = Status(code=404, reason="NotFound", message=told)
        raise ApiError(request=response.request, status=status) from error
