"""The Azure ML workspace over Azure Resource Manager: jobs, run history, models, datastores, sizes.

What only reads, and what is a plain document, goes this way: azure-ai-ml takes seconds to import
and is left to what it does best, submitting jobs.

A datastore names a container of the fleet to Azure ML: ``PREFIX_training``, ``PREFIX_models``. It
carries no credential, so that jobs reach it with the identity that they run under.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import msgspec

from edgefleet.interfaces.answers import read_answer
from edgefleet_azure.errors import code_of, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

API = "2025-12-01"
_PROVIDER = "providers/Microsoft.MachineLearningServices"
MISSING = 404


class _Services(msgspec.Struct, frozen=True):
    """What is read of the services of a region: where the run history is."""

    api: str


class Workspace:
    """The profile's workspace.

    Args:
        clients: to reach Azure with.
        settings: subscription, resource group, workspace, storage account, prefix.
    """

    def __init__(self, clients: Clients, settings: AzureSettings) -> None:
        self._clients, self._settings = clients, settings
        self._lock = threading.Lock()
        self._made: set[str] = set()
        self._services: dict[str, str] = {}

    @property
    def path(self) -> str:
        """Resource id of the workspace.

        Raises:
            ProfileError: the profile names none.
        """
        name = self._settings.needed("workspace", "Azure ML")
        return f"{self._settings.group_path}/{_PROVIDER}/workspaces/{name}"

    def read(self, below: str) -> dict[str, Any] | None:
        """A document of the workspace; None when there is none.

        Args:
            below: its path in the workspace, such as ``jobs/NAME``.
        """
        try:
            return self._json("GET", f"{self.path}/{below}")
        except Exception as error:
            if status_of(error) == MISSING and code_of(error) != "WorkspaceNotFound":
                return None
            raise

    def write(self, below: str, properties: dict[str, Any]) -> dict[str, Any]:
        """Put a document of the workspace, and give it as it is then."""
        return self._json("PUT", f"{self.path}/{below}", {"properties": properties})

    def act(self, below: str) -> None:
        """Have something done, such as ``jobs/NAME/cancel``; returns before it is done."""
        self._clients.arm("POST", f"{self.path}/{below}", api_version=API)

    def all(self, below: str) -> Iterator[dict[str, Any]]:
        """Every document of a listing, page by page."""
        path = f"{self.path}/{below}"
        while path:
            reply = self._json("GET", path)
            yield from reply.get("value", ())
            path = str(reply.get("nextLink") or "")

    def _json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        if "api-version=" in path:  # a page's address is whole
            reply = self._clients.call(method, path, audience=self._settings.arm_url, body=body)
        else:
            reply = self._clients.arm(method, path, api_version=API, body=body)
        return read_answer(reply, dict[str, Any])

    # Run history

    def run(self, run_id: str, what: str = "") -> dict[str, Any] | None:
        """A run as the run history tells it; None when there is none.

        Args:
            run_id: of the run; a job's name.
            what: ``details`` or ``children`` of it.
        """
        url = f"{self._history}/history/v1.0{self.path}/runs/{quote(run_id, safe='')}"
        try:
            reply = self._clients.call(
                "GET", f"{url}/{what}" if what else url, audience=self._settings.arm_url
            )
        except Exception as error:
            if status_of(error) == MISSING:
                return None
            raise
        return read_answer(reply, dict[str, Any])

    @property
    def _history(self) -> str:
        """Address of the run history of the workspace's region."""
        with self._lock:
            if not self._services:
                found = self._json("GET", self.path)
                where = str(found["properties"]["discoveryUrl"])
                reply = self._clients.call("GET", where, audience=self._settings.arm_url)
                services = read_answer(reply, _Services)
                self._services = {"location": str(found["location"]), "api": services.api}
            return self._services["api"].rstrip("/")

    @property
    def sizes(self) -> list[dict[str, Any]]:
        """Machine sizes of the workspace's region: ``name``, ``gpus``, ``memoryGB`` and more."""
        _ = self._history
        location = self._services["location"]
        path = f"/subscriptions/{self._settings.subscription}/{_PROVIDER}/locations/{location}"
        found: list[dict[str, Any]] = self._json("GET", f"{path}/vmSizes")["value"]
        return found

    # Datastores

    def datastore(self, kind: str) -> str:
        """Name of the datastore of a container of the fleet, made if need be.

        Args:
            kind: of the container, such as ``training``.
        """
        name = f"{self._settings.prefix.replace('-', '_')}_{kind}"
        with self._lock:
            known = name in self._made
        if not known:
            if self.read(f"datastores/{name}") is None:
                self.write(f"datastores/{name}", _store_of(self._settings, kind))
            with self._lock:
                self._made.add(name)
        return name

    def address(self, kind: str, path: str) -> str:
        """Where Azure ML finds what lies in a container of the fleet."""
        return f"azureml://datastores/{self.datastore(kind)}/paths/{path}"


def _store_of(settings: AzureSettings, kind: str) -> dict[str, Any]:
    parts = urlsplit(settings.storage_url)
    account, _, rest = parts.netloc.partition(".blob.")
    if parts.path:  # an emulator's address has the account as path
        account, rest = parts.path.strip("/"), "core.windows.net"
    return {
        "datastoreType": "AzureBlob",
        "accountName": account,
        "containerName": settings.container(kind),
        "endpoint": rest,
        "protocol": "https",
        "credentials": {"credentialsType": "None"},
        "tags": {"edgefleet.prefix": settings.prefix},
    }
