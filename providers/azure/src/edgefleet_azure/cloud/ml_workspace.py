"""A workspace: what it is, its compute, the sizes of machines there, its datastores."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.ml_calls import members_of, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_azure.cloud.calls import Call

LOCATION = "westeurope"
COMPUTE = "cpu-cluster"
MAX_NODES = 4
# Some of the real ones, with figures as in
# https://learn.microsoft.com/azure/virtual-machines/sizes/overview
SIZES = (
    {"name": "Standard_DS2_v2", "vCPUs": 2, "gpus": 0, "memoryGB": 7.0},
    {"name": "Standard_DS3_v2", "vCPUs": 4, "gpus": 0, "memoryGB": 14.0},
    {"name": "Standard_D16s_v3", "vCPUs": 16, "gpus": 0, "memoryGB": 64.0},
    {"name": "Standard_E32s_v3", "vCPUs": 32, "gpus": 0, "memoryGB": 256.0},
    {"name": "Standard_NC4as_T4_v3", "vCPUs": 4, "gpus": 1, "memoryGB": 28.0},
    {"name": "Standard_NC24ads_A100_v4", "vCPUs": 24, "gpus": 1, "memoryGB": 220.0},
    {"name": "Standard_NC96ads_A100_v4", "vCPUs": 96, "gpus": 4, "memoryGB": 880.0},
)


class Workspace:
    """The one workspace of the mock.

    Args:
        account: name of the storage account.
        group: resource id of the resource group.
        name: of the workspace.
    """

    def __init__(self, account: str, group: str, name: str) -> None:
        self._account, self._group, self._name = account, group, name
        self._lock = threading.Lock()
        self.scope = f"{group}/providers/Microsoft.MachineLearningServices/workspaces/{name}"
        store = _datastore(account, "azureml-blobstore")
        self._datastores: dict[str, dict[str, Any]] = {"workspaceblobstore": store}

    def kept(self) -> dict[str, Any]:
        """What there is, as JSON."""
        with self._lock:
            return dict(self._datastores)

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on with what an earlier run of the mock kept."""
        with self._lock:
            self._datastores = dict(kept)

    def told(self, origin: str) -> dict[str, Any]:
        """The answer of a GET of the workspace."""
        return {
            "id": self.scope,
            "name": self._name,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": LOCATION,
            "kind": "Default",
            "tags": {},
            "identity": {"type": "SystemAssigned"},
            "properties": {
                "friendlyName": self._name,
                "workspaceId": "00000000-0000-4000-8000-00000000031a",
                "provisioningState": "Succeeded",
                "discoveryUrl": f"{origin}/discovery",
                "mlFlowTrackingUri": f"azureml://{LOCATION}.api.azureml.ms/mlflow/v1.0{self.scope}",
                "storageAccount": f"{self._group}/providers/Microsoft.Storage/storageAccounts/"
                f"{self._account}",
                "publicNetworkAccess": "Enabled",
            },
        }

    def compute(self, name: str) -> dict[str, Any]:
        """The answer of a GET of a compute target.

        Raises:
            Refused: there is none.
        """
        if name != COMPUTE:
            raise Refused(404, "ComputeNotFound", f"Compute with name {name} was not found.")
        scale = {
            "minNodeCount": 0,
            "maxNodeCount": MAX_NODES,
            "nodeIdleTimeBeforeScaleDown": "PT2M",
        }
        return {
            "id": f"{self.scope}/computes/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/computes",
            "location": LOCATION,
            "properties": {
                "computeType": "AmlCompute",
                "provisioningState": "Succeeded",
                "properties": {
                    "vmSize": "Standard_DS3_v2",
                    "vmPriority": "Dedicated",
                    "scaleSettings": scale,
                    "osType": "Linux",
                },
            },
        }

    def datastore(self, call: Call, name: str) -> Reply:
        """Reply a call about a datastore.

        Raises:
            Refused: there is none, or it isn't asked for as Azure takes it.
        """
        with self._lock:
            if call.method == "PUT":
                asks = members_of(call)
                wanted = {"accountName", "containerName", "credentials", "datastoreType"}
                if lacking := wanted - set(asks):
                    raise Refused(400, "ValidationError", f"{name}: {sorted(lacking)} missing.")
                self._datastores[name] = asks
            there = self._datastores.get(name)
            if there is None:
                raise missing(f"Datastore {name}")
            return Reply(200, self._told(name, there))

    def container(self, datastore: str) -> tuple[str, str]:
        """Account and container of a datastore; `KeyError` when there is none."""
        with self._lock:
            there = self._datastores[datastore]
            return str(there["accountName"]), str(there["containerName"])

    def _told(self, name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "id": f"{self.scope}/datastores/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/datastores",
            "properties": {"isDefault": name == "workspaceblobstore", **properties},
        }


def sizes() -> Reply:
    """The answer of a listing of machine sizes."""
    usual: dict[str, Any] = {
        "osVhdSizeMB": 1_047_552,
        "maxResourceVolumeMB": 28_672,
        "premiumIO": True,
    }
    usual |= {"lowPriorityCapable": True, "supportedComputeTypes": ["AmlCompute"]}
    told = [{"family": "standard", **usual, **size} for size in SIZES]
    return Reply(200, {"value": told})


def _datastore(account: str, container: str) -> dict[str, Any]:
    return {
        "datastoreType": "AzureBlob",
        "accountName": account,
        "containerName": container,
        "endpoint": "core.windows.net",
        "protocol": "https",
        "credentials": {"credentialsType": "None"},
        "tags": {},
        "properties": {},
    }
