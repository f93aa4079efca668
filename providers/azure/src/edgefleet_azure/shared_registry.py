"""A shared Azure ML registry, whose model assets several workspaces and subscriptions see.

Rules kept here (docs/adr/0016):

- A registry is found by its name, wherever in the tenant it lies, and is called as Azure ML's own
  library calls it: by the discovery service, then in the registry's first region. The built-in role
  for registries allows nothing else.
- An asset's bytes lie in the registry's own storage. Ours is the bundle's index, by which the rest
  is found in the fleet's storage; the property ``edgefleet.source`` says where that is.
- A place to upload to is asked for under an id that model, number and digest give. So whoever
  begins again, and whoever pushes the same at the same time, gets the same place.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from edgefleet.errors import ConfigurationError, NotFoundError, ProfileError, WaitTimeoutError
from edgefleet.interfaces.answers import read_answer
from edgefleet.protocol.bundle import MAX_INDEX_BYTES
from edgefleet_azure.errors import status_of
from edgefleet_azure.model_assets import FIXED, taken
from edgefleet_azure.settings import ARM

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from azure.core.rest import HttpResponse

    from edgefleet.interfaces.blobs import BlobStore
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

# azure-ai-ml 1.35, `_utils/_registry_utils.py` and `_azure_environments.py`
API = "2021-10-01-dataplanepreview"
DISCOVERY = "https://eastus.api.azureml.ms"
DISCOVERY_VARIABLE = "REGISTRY_DISCOVERY_ENDPOINT_URL"
"""Read by azure-ai-ml as well; both find registries of any cloud but the public one by it."""
FRONT = "mferp/managementfrontend"
SOURCE = "edgefleet.source"
"""Property of an asset: below which address the fleet's blobs lie."""
FILE = "index.json"
"""Name of a bundle's index in the registry's storage."""
TIMEOUT_S = 300.0
FIRST_POLL_S, LAST_POLL_S = 0.2, 10.0
_NAMESPACE = uuid.UUID("5b0f1d2c-7f0e-5a53-9a2e-3b6a1d8c4e90")


class _Credential(msgspec.Struct, frozen=True):
    sas_uri: str = msgspec.field(name="sasUri")

    def __repr__(self) -> str:
        return "<credential>"


class _Place(msgspec.Struct, frozen=True, rename="camel"):
    blob_uri: str
    credential: _Credential


class _Reference(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of a temporary data reference."""

    blob_reference_for_consumption: _Place


class _Discovered(msgspec.Struct, frozen=True, rename="camel"):
    """What is read of where a registry is."""

    primary_region_resource_provider_uri: str
    subscription_id: str
    resource_group: str


class SharedRegistry:
    """Model assets of the shared registry that the profile names.

    Args:
        clients: to reach Azure with.
        settings: the registry's name, where the fleet's blobs lie.
        blobs: the fleet's own.
    """

    def __init__(self, clients: Clients, settings: AzureSettings, blobs: BlobStore) -> None:
        self._clients, self._settings, self._blobs = clients, settings, blobs
        self._name = settings.needed("ml_registry", "a shared registry")
        self._lock = threading.Lock()
        self._found = ""

    @property
    def marks(self) -> Mapping[str, str]:
        return {SOURCE: self._settings.models_url}

    def find(self) -> str:
        """Where the registry's assets are reached, without a slash at the end.

        Raises:
            NotFoundError: there is no such registry, or none that we may see.
            ProfileError: no discovery service is known for this cloud.
        """
        with self._lock:
            if not self._found:
                self._found = self._discover()
            return self._found

    def versions(self, model: str) -> Iterator[dict[str, Any]]:
        url = f"{self.find()}/models/{quote(model)}/versions"
        parameters: dict[str, str] | None = {"api-version": API}
        while url:
            try:
                reply = self._call("GET", url, parameters=parameters)
            except Exception as error:
                if status_of(error) == 404:
                    return
                raise
            page = read_answer(reply, dict[str, Any])
            yield from page.get("value", ())
            url, parameters = str(page.get("nextLink") or ""), None

    def read(self, model: str, number: int) -> dict[str, Any] | None:
        url = f"{self.find()}/models/{quote(model)}/versions/{number}"
        try:
            found = self._call("GET", url, parameters={"api-version": API})
        except Exception as error:
            if status_of(error) == 404:
                return None
            raise
        return read_answer(found, dict[str, Any])

    def address(self, model: str, number: int, digest: str) -> str:
        asset = f"azureml://registries/{self._name}/models/{model}/versions/{number}"
        wanted = {
            "assetId": asset,
            "temporaryDataReferenceId": str(uuid.uuid5(_NAMESPACE, f"{asset} {digest}")),
            "temporaryDataReferenceType": "TemporaryBlobReference",
        }
        url = f"{self.find()}/tempdatarefs/{quote(model)}/versions/{number}"
        try:
            reply = self._call("PUT", url, parameters={"api-version": API}, body=wanted)
        except Exception as error:
            if status_of(error) == 409:
                raise taken(model, number) from error
            raise
        place = read_answer(reply, _Reference).blob_reference_for_consumption
        index = self._blobs.read_bytes(digest, max_bytes=MAX_INDEX_BYTES)
        with self._clients.container_at(place.credential.sas_uri) as container:
            container.upload_blob(FILE, index, overwrite=True)
        return f"{place.blob_uri.rstrip('/')}/{FILE}"

    def write(self, model: str, number: int, properties: dict[str, Any]) -> None:
        url = f"{self.find()}/models/{quote(model)}/versions/{number}"
        parameters = {"api-version": API}
        try:
            body = {"properties": properties}
            reply = self._call("PUT", url, parameters=parameters, body=body)
        except Exception as error:
            if status_of(error) in {400, 409} and FIXED in str(error):
                raise taken(model, number) from error
            raise
        where = reply.headers.get("Azure-AsyncOperation")
        if where is not None:
            self._wait(where, model, number)

    def _wait(self, where: str, model: str, number: int) -> None:
        """Return when an asset is made, which takes a registry a while."""
        deadline, pause = time.monotonic() + TIMEOUT_S, FIRST_POLL_S
        while (told := self._told(where)).get("status") != "Succeeded":
            if told.get("status") in {"Failed", "Canceled"}:
                said = str((told.get("error") or {}).get("message") or "no reason was given")
                if FIXED in said:
                    raise taken(model, number)
                raise ConfigurationError(
                    f"registry {self._name} didn't take version {number} of {model}: {said}",
                    cure="change what the message names, and push the version again",
                )
            if time.monotonic() > deadline:
                raise WaitTimeoutError(
                    f"registry {self._name} still makes version {number} of {model} "
                    f"after {TIMEOUT_S:.0f} s"
                )
            time.sleep(pause)
            pause = min(pause * 2, LAST_POLL_S)

    def _told(self, where: str) -> dict[str, Any]:
        """How far an operation is."""
        return read_answer(self._call("GET", where), dict[str, Any])

    def _discover(self) -> str:
        name, arm = self._name, self._settings.arm_url
        endpoint = os.environ.get(DISCOVERY_VARIABLE) or (DISCOVERY if arm == ARM else "")
        if not endpoint:
            raise ProfileError(
                f"no discovery service of registries is known for the cloud at {arm}",
                cure=f"set the variable {DISCOVERY_VARIABLE} to its address",
            )
        url = f"{endpoint.rstrip('/')}/registrymanagement/v1.0/registries/{name}/discovery"
        try:
            reply = self._call("GET", url, parameters={"api-version": "v1.0"})
        except Exception as error:
            if status_of(error) != 404:
                raise
            raise NotFoundError(
                f"there is no shared Azure ML registry {name!r}, or none that you may see",
                cure="check `ml_registry` of the profile; what there is: az ml registry list",
            ) from error
        found = read_answer(reply, _Discovered)
        return (
            f"{found.primary_region_resource_provider_uri.rstrip('/')}/{FRONT}"
            f"/subscriptions/{found.subscription_id}/resourceGroups/{found.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/registries/{name}"
        )

    def _call(
        self,
        method: str,
        url: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: object = None,
    ) -> HttpResponse:
        arm = self._settings.arm_url
        return self._clients.call(method, url, audience=arm, parameters=parameters, body=body)
