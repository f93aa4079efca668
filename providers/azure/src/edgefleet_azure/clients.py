"""The one place that makes Azure's clients: credential, retries, timeouts, who we say we are.

Rules kept here:

- Who calls is azure-identity's affair: environment, workload or managed identity, ``az login``.
- Each library repeats calls by the rules of `retries`; a call that is throttled to the end is a
  `ThrottledError`.
- Libraries are imported when a client is first asked for: azure-ai-ml alone takes seconds. No
  client sends usage data to anybody.
"""

# ruff: noqa: PLC0415 - each library is imported with the client that needs it

from __future__ import annotations

import os
import threading
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast
from urllib.parse import quote, urlsplit

from edgefleet.errors import ProfileError
from edgefleet_azure.ml_library import load_library

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from azure.ai.ml import MLClient
    from azure.core import PipelineClient
    from azure.core.rest import HttpResponse
    from azure.storage.blob import BlobServiceClient, ContainerClient

    from edgefleet_azure.settings import AzureSettings

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
Made = TypeVar("Made")
STORAGE_AUDIENCE = "https://storage.azure.com"
STORAGE_VERSION = "2024-11-04"  # of Blob storage's API, where we call it ourselves
METADATA_VARIABLE = "ARM_CLOUD_METADATA_URL"
"""Read by azure-ai-ml; it finds any cloud but the public one by it."""


class Credential(Protocol):
    """What gives tokens."""

    def get_token(self, *scopes: str, **options: Any) -> Any: ...  # noqa: ANN401 - azure-core's
    def close(self) -> None: ...


class Clients:
    """Azure's clients, made when they are first asked for. Safe to share between threads.

    Args:
        settings: addresses and retries.
        credential: who calls; None for what azure-identity finds.
        authorities: file of those whose certificates are trusted; None for this machine's.
    """

    def __init__(
        self,
        settings: AzureSettings,
        *,
        credential: Credential | None = None,
        authorities: str | None = None,
    ) -> None:
        self._settings = settings
        self._trusted: dict[str, Any] = (
            {} if authorities is None else {"connection_verify": authorities}
        )
        self._lock = threading.RLock()
        self._given = credential
        self._made: dict[str, Any] = {}

    @property
    def credential(self) -> Credential:
        """Who calls."""
        return self._given or self._once("credential", self._find_credential)

    @property
    def blobs(self) -> BlobServiceClient:
        """The storage account."""
        return self._once("blobs", self._make_blobs)

    def container(self, kind: str) -> ContainerClient:
        """A container of the fleet.

        Args:
            kind: ``models``, ``state`` or ``devices``.
        """
        return self.blobs.get_container_client(self._settings.container(kind))

    def container_at(self, link: str) -> ContainerClient:
        """A container by an address that says itself what may be done; closed by whoever asks.

        Args:
            link: its address with a SAS.

        Raises:
            ValueError: the address isn't HTTPS.
        """
        from azure.storage.blob import ContainerClient

        from edgefleet_azure.retries import BlobRetries

        _check_https(link.partition("?")[0])
        options = {**self._options(), "retry_policy": BlobRetries(self._settings.max_attempts)}
        return ContainerClient.from_container_url(link, **options)

    def hub(self, host: str | None = None) -> Any:  # noqa: ANN401 - azure-iot-hub has no types
        """An ``IoTHubRegistryManager``; its ``protocol`` has every operation of the hub's API.

        Args:
            host: name of one of the profile's hubs; None for the first.

        Raises:
            ProfileError: the profile names no hub.
        """
        if host is None:
            self._settings.needed("hubs", "reaching devices")
        name = host or self._settings.hubs[0]
        return self._once(f"hub {name}", lambda: self._make_hub(name))

    def ml(self) -> MLClient:
        """Azure ML's workspace.

        Raises:
            ProfileError: the profile lacks what it needs.
        """
        return self._once("ml", self._make_ml)

    def arm(
        self,
        method: str,
        path: str,
        *,
        api_version: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """Call Azure Resource Manager, with retries.

        Args:
            method: of HTTP.
            path: of the resource, such as ``/subscriptions/…/providers/…``, or the whole address
                of an operation in progress.
            api_version: of the resource's provider.
            body: sent as JSON; None for no body.
            headers: more of them.

        Returns:
            The answer, read; a long operation is followed by whoever asked for it.

        Raises:
            azure.core.exceptions.HttpResponseError: the answer is an error.
        """
        arm = self._settings.arm_url
        return self.call(
            method,
            f"{arm}{quote(path, safe='/()$%~')}" if path.startswith("/") else path,
            audience=arm,
            parameters={"api-version": api_version},
            body=body,
            headers=headers,
        )

    def call(
        self,
        method: str,
        url: str,
        *,
        audience: str,
        parameters: Mapping[str, str] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
    ) -> HttpResponse:
        """Call a service of Azure that has no client here, with retries.

        Args:
            method: of HTTP.
            url: of the resource; its host is sent a token of ours.
            audience: that the token is for, such as ``https://ml.azure.com``.
            parameters: of the query.
            body: sent as JSON; None for no body.
            headers: more of them.
            stream: give the answer before its body has come; whoever calls reads and closes it.

        Raises:
            ValueError: the address isn't HTTPS.
            azure.core.exceptions.HttpResponseError: the answer is an error.
        """
        from azure.core.exceptions import HttpResponseError
        from azure.core.rest import HttpRequest

        _check_https(url)
        request = HttpRequest(
            method,
            url,
            params=dict(parameters or {}),
            headers={"Accept": "*/*" if stream else "application/json", **(headers or {})},
            json=body,
        )
        client = self._once(f"rest {audience}", lambda: self._make_rest(audience))
        response: HttpResponse = client.send_request(request, stream=stream)
        if response.status_code >= 400:
            response.read()
            raise HttpResponseError(response=response)
        return response

    def close(self) -> None:
        """Close every connection; a client asked for afterwards is a new one."""
        with self._lock:
            made, self._made = self._made, {}
        for name, client in made.items():
            if name.startswith("hub "):
                client.protocol.close()
            elif hasattr(client, "close"):
                client.close()

    def _once(self, name: str, make: Callable[[], Made]) -> Made:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return cast("Made", self._made[name])

    def _options(self) -> dict[str, Any]:
        """What every client on azure-core is made with."""
        from edgefleet_azure.retries import Retries

        return {
            "retry_policy": Retries(self._settings.max_attempts),
            "connection_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "user_agent": f"edgefleet/{version('edgefleet')}",
            "logging_enable": False,
            **self._trusted,
        }

    def _find_credential(self) -> Credential:
        from azure.identity import DefaultAzureCredential

        return DefaultAzureCredential()

    def _make_blobs(self) -> BlobServiceClient:
        from azure.storage.blob import BlobServiceClient

        from edgefleet_azure.retries import BlobRetries

        return BlobServiceClient(
            self._settings.storage_url,
            credential=cast("Any", self.credential),
            max_single_put_size=self._settings.block_bytes,
            max_single_get_size=self._settings.block_bytes,
            max_chunk_get_size=self._settings.block_bytes,
            **{**self._options(), "retry_policy": BlobRetries(self._settings.max_attempts)},
        )

    def _make_hub(self, host: str) -> Any:  # noqa: ANN401 - azure-iot-hub has no types
        from azure.iot.hub import IoTHubRegistryManager

        from edgefleet_azure.retries import HubRetries

        manager = IoTHubRegistryManager.from_token_credential(host, self.credential)
        config = manager.protocol.config
        retries = HubRetries.of(self._settings.max_attempts)

        def configure(session: Any, *_: object, **__: object) -> None:  # noqa: ANN401 - of requests
            # Each thread has a session of its own, and this one's was made already.
            for adapter in session.adapters.values():
                adapter.max_retries = retries

        config.session_configuration_callback = configure
        config.keep_alive = True  # else each call is a connection of its own
        config.connection.timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        config.connection.verify = self._trusted.get("connection_verify", True)
        config.add_user_agent(f"edgefleet/{version('edgefleet')}")
        return manager

    def _make_ml(self) -> MLClient:
        settings = self._settings
        workspace = settings.needed("workspace", "Azure ML")
        arm = urlsplit(settings.arm_url)
        if arm.netloc != "management.azure.com" and METADATA_VARIABLE not in os.environ:
            raise ProfileError(
                f"Azure ML's library is not told of the cloud at {settings.arm_url}",
                cure=f"set the variable {METADATA_VARIABLE} to the cloud's metadata address",
            )
        load_library()
        from azure.ai.ml import MLClient

        return MLClient(
            self.credential,
            settings.subscription,
            settings.resource_group,
            workspace,
            enable_telemetry=False,
            **self._options(),
        )

    def _make_rest(self, audience: str) -> PipelineClient[Any, Any]:
        from azure.core import PipelineClient
        from azure.core.pipeline import policies

        options = self._options()
        return PipelineClient(
            base_url="",
            policies=[
                policies.RequestIdPolicy(),
                policies.UserAgentPolicy(**options),
                policies.ProxyPolicy(),
                options["retry_policy"],
                policies.BearerTokenCredentialPolicy(
                    cast("Any", self.credential), f"{audience}/.default"
                ),
            ],
            connection_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            **self._trusted,
        )


def _check_https(url: str) -> None:
    if urlsplit(url).scheme != "https":
        raise ValueError(f"{url}: tokens and signatures are sent by HTTPS only")
