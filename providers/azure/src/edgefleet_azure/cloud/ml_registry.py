"""A shared registry of Azure ML in the mock: how it is found, its models, and its own storage.

Rules as in ``mock_rules.md``: it lies in another subscription; each version of a model that is yet
to be made has a container, which whoever writes it is given a signature for; its bytes lie there
before the version is made, and nowhere else.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.ml_assets import Assets
from edgefleet_azure.cloud.ml_calls import members_of, missing
from edgefleet_azure.cloud.ml_workspace import LOCATION
from edgefleet_azure.cloud.roles import TENANT
from edgefleet_azure.cloud.server import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgefleet_azure.cloud.accounts import StorageAccount
    from edgefleet_azure.cloud.calls import Call

SUBSCRIPTION = "99999999-1111-2222-3333-444444444444"
RESOURCE_GROUP = "shared"
API = "2021-10-01-dataplanepreview"
LINK_S = 3600  # what a version's container is written or read with is good for so long
_TYPE = "Microsoft.MachineLearningServices/registries"
_FRONT = "/mferp/managementfrontend"


class ModelRegistry:
    """One registry and the models in it.

    Args:
        name: of it.
        storage: its own account.
        url: gives the address of that account's host, without a slash at the end.
        caller: who is said to have changed what.

    Attributes:
        scope: its resource id.
        assets: models.
        told: what operations answer before they have succeeded, each once.
        storage: its own account.
    """

    def __init__(
        self, name: str, storage: StorageAccount, url: Callable[[], str], caller: str
    ) -> None:
        self.name, self.storage, self._url = name, storage, url
        group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{RESOURCE_GROUP}"
        self.scope = f"{group}/providers/{_TYPE}/{name}"
        self.assets = Assets(self.scope, caller, ids=f"azureml://registries/{name}")
        self.told: deque[dict[str, Any]] = deque()
        self._lock = threading.Lock()
        self._places: dict[str, list[str]] = {}

    def kept(self) -> dict[str, Any]:
        """What there is, as JSON."""
        with self._lock:
            places = {asset: list(found) for asset, found in self._places.items()}
        return {"assets": self.assets.kept(), "places": places, "storage": self.storage.kept()}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on with what an earlier run of the mock kept."""
        with self._lock:
            self._places = {asset: list(found) for asset, found in kept["places"].items()}
        self.assets.restore(kept["assets"])
        self.storage.restore(kept["storage"])

    @property
    def routes(self) -> Sequence[Route]:
        """What is answered here."""
        discovery = "/registrymanagement/v1.0/registries/{registry}/discovery"
        one = "/{name}/versions/{version}"
        return (
            Route("registry.Discover", "GET", discovery, self._discover),
            self._route("GetModel", "GET", "/models/{name}", self._read),
            self._route("ListModels", "GET", "/models", self._read),
            self._route("ListModelVersions", "GET", "/models/{name}/versions", self._list),
            self._route("GetModelVersion", "GET", f"/models{one}", self._read),
            self._route("PutModelVersion", "PUT", f"/models{one}", self._put),
            self._route("PutTemporaryDataReference", "PUT", f"/tempdatarefs{one}", self._place),
            self._route("GetDataReference", "POST", f"/datarefs{one}", self._link),
            self._route("GetOperation", "GET", "/operationresults/{operation}", self._went),
        )

    def _route(
        self, operation: str, method: str, below: str, handle: Callable[[Call], Reply]
    ) -> Route:
        def checked(call: Call) -> Reply:
            asked = (
                f"/subscriptions/{call.parts['subscription']}/resourceGroups/{call.parts['group']}"
                f"/providers/{_TYPE}/{call.parts['registry']}"
            )
            if asked.lower() != self.scope.lower():
                raise Refused(404, "ResourceNotFound", f"The resource '{asked}' was not found.")
            if call.query.get("api-version") != API:
                raise Refused(400, "UserError", f"The api-version here is {API}.")
            return handle(call)

        place = f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{_TYPE}"
        path = f"{_FRONT}{place}/{{registry}}{below}"
        return Route(f"registry.{operation}", method, path, checked)

    def _discover(self, call: Call) -> Reply:
        if call.parts["registry"].lower() != self.name.lower():
            raise Refused(404, "UserError", f"Registry {call.parts['registry']} was not found.")
        call.require(f"{_TYPE}/read", self.scope)
        found = {
            "registryName": self.name,
            "tenantId": TENANT,
            "primaryRegion": LOCATION,
            "regions": [LOCATION],
            "subscriptionId": SUBSCRIPTION,
            "resourceGroup": RESOURCE_GROUP,
            "primaryRegionResourceProviderUri": f"{call.base}/",
        }
        return Reply(200, found)

    # Models

    def _read(self, call: Call) -> Reply:
        parts = call.parts
        return self.assets.answer(call, "models", parts.get("name"), parts.get("version"))

    def _list(self, call: Call) -> Reply:
        return self.assets.answer(call, "models", call.parts["name"], "")

    def _put(self, call: Call) -> Reply:
        name, version = call.parts["name"], call.parts["version"]
        wanted = members_of(call)
        there = self.assets.has("models", name, version)
        before = self.assets.read("models", name, version) if there else {}
        if wanted.get("stage", before.get("stage")) != before.get("stage"):
            call.require(f"{_TYPE}/assets/stage/write", self.scope)
        if not there:
            self._check_place(f"{name}:{version}", str(wanted.get("modelUri") or ""))
        reply = self.assets.answer(call, "models", name, version)
        if reply.status == 201:
            where = f"{call.base}{_FRONT}{self.scope}/operationresults/{uuid.uuid4()}"
            reply.headers["Azure-AsyncOperation"] = f"{where}?api-version={API}"
        return reply

    def _check_place(self, asset: str, uri: str) -> None:
        """Refuse bytes that lie elsewhere, or aren't there."""
        with self._lock:
            containers = list(self._places.get(asset, ()))
        for container in containers:
            start = f"{self._url()}/{container}/"
            blobs = self.storage.container(container).blobs
            if uri.startswith(start) and any(
                name.startswith(uri.removeprefix(start)) for name in blobs
            ):
                return
        raise Refused(400, "UserError", f"No data of {asset} was found at {uri!r}.")

    def _went(self, call: Call) -> Reply:
        """How an operation goes."""
        with self._lock:
            told = self.told.popleft() if self.told else {"status": "Succeeded"}
        return Reply(200, {"name": call.parts["operation"], **told})

    # Storage

    def _place(self, call: Call) -> Reply:
        """A container for a version that is yet to be made: the same for the same id."""
        name, version, asks = call.parts["name"], call.parts["version"], call.json()
        if asks.get("temporaryDataReferenceType") != "TemporaryBlobReference":
            raise Refused(400, "UserError", "Only TemporaryBlobReference is known here.")
        if self.assets.has("models", name, version):
            raise Refused(409, "UserError", f"Asset {name}:{version} already exists.")
        reference = str(asks.get("temporaryDataReferenceId") or uuid.uuid4())
        made = uuid.uuid5(uuid.NAMESPACE_URL, f"{self.name}/{name}/{version}/{reference}")
        container = f"{self.name}-{made.hex}"[:63]
        with self._lock, self.storage.lock:
            if container not in self.storage.containers:
                self.storage.create(container)
                self._places.setdefault(f"{name}:{version}", []).append(container)
        told = self._told(
            container, ContainerSasPermissions(read=True, write=True, list=True, create=True)
        )
        return Reply(200, {**told, "temporaryDataReferenceId": reference})

    def _link(self, call: Call) -> Reply:
        """What a version's bytes are read with."""
        name, version = call.parts["name"], call.parts["version"]
        if not self.assets.has("models", name, version):
            raise missing(f"models {name}:{version}")
        uri = str(self.assets.read("models", name, version)["modelUri"])
        if call.json().get("blobUri") != uri:
            raise Refused(400, "UserError", f"{name}:{version} doesn't lie there.")
        container = uri.removeprefix(f"{self._url()}/").partition("/")[0]
        return Reply(200, self._told(container, ContainerSasPermissions(read=True, list=True)))

    def _told(self, container: str, allowed: ContainerSasPermissions) -> dict[str, Any]:
        sas = generate_container_sas(
            self.storage.name,
            container,
            account_key=self.storage.keys[0],
            permission=allowed,
            expiry=datetime.fromtimestamp(self.storage.clock(), UTC) + timedelta(seconds=LINK_S),
        )
        uri = f"{self._url()}/{container}"
        return {
            "blobReferenceForConsumption": {
                "blobUri": uri,
                "credential": {"credentialType": "SAS", "sasUri": f"{uri}?{sas}"},
            }
        }
