"""Persistent volumes: claims find volumes, or have them made, as a k3s node does.

A claim takes the smallest volume that fits; one of a class with the provisioner `PROVISIONER` has
its volume made on the node of the first pod that wants it (``WaitForFirstConsumer``), as
https://github.com/rancher/local-path-provisioner does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud.api_quantities import amount
from edgefleet_kubernetes.cloud.api_status import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_client import Client

PROVISIONER = "rancher.io/local-path"
FOLDER = "/var/lib/rancher/k3s/storage"


def fitting(claim: Object, volumes: Sequence[Object]) -> Object | None:
    """The smallest free volume that a claim may have; None where there is none."""
    spec = claim["spec"]
    asked = amount(spec["resources"]["requests"]["storage"])
    found = [
        one
        for one in volumes
        if not one["spec"].get("claimRef")
        and (one["spec"].get("storageClassName") or "") == (spec.get("storageClassName") or "")
        and set(spec["accessModes"]) <= set(one["spec"]["accessModes"])
        and amount(one["spec"]["capacity"]["storage"]) >= asked
        and spec.get("volumeName") in (None, one["metadata"]["name"])
    ]
    return min(
        found,
        key=lambda one: (amount(one["spec"]["capacity"]["storage"]), one["metadata"]["name"]),
        default=None,
    )


class Claims:
    """Binds claims to volumes.

    Args:
        client: of the API server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def reconcile(self) -> None:
        """Look at every claim that waits."""
        for claim in self._client.list("PersistentVolumeClaim"):
            if (claim.get("status") or {}).get("phase") == "Bound":
                continue
            volume = fitting(claim, self._client.list("PersistentVolume"))
            volume = volume or self._made(claim)
            if volume is not None:
                self._bind(claim, volume)

    def _bind(self, claim: Object, volume: Object) -> None:
        meta = claim["metadata"]

        def take(found: Object) -> None:
            found["spec"]["claimRef"] = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            }

        def name(found: Object) -> None:
            found["spec"]["volumeName"] = volume["metadata"]["name"]

        if self._client.change(volume, take) is None or self._client.change(claim, name) is None:
            return
        self._client.set_status(volume, phase="Bound")
        self._client.set_status(
            claim,
            phase="Bound",
            accessModes=volume["spec"]["accessModes"],
            capacity=volume["spec"]["capacity"],
        )

    def _made(self, claim: Object) -> Object | None:
        meta, spec = claim["metadata"], claim["spec"]
        found = self._client.get("StorageClass", "", spec.get("storageClassName") or "")
        if found is None or found["provisioner"] != PROVISIONER:
            return None
        node = self._first_consumer(meta["namespace"], meta["name"])
        if node is None:
            return None
        name = f"pvc-{meta['uid']}"
        where = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        try:
            return self._client.create(
                {
                    "apiVersion": "v1",
                    "kind": "PersistentVolume",
                    "metadata": {"name": name},
                    "spec": {
                        "capacity": {"storage": spec["resources"]["requests"]["storage"]},
                        "accessModes": spec["accessModes"],
                        "persistentVolumeReclaimPolicy": "Delete",
                        "storageClassName": spec["storageClassName"],
                        "hostPath": {
                            "path": f"{FOLDER}/{name}_{meta['namespace']}_{meta['name']}",
                            "type": "DirectoryOrCreate",
                        },
                        "nodeAffinity": {
                            "required": {"nodeSelectorTerms": [{"matchExpressions": [where]}]}
                        },
                    },
                }
            )
        except Refused:
            return self._client.get("PersistentVolume", "", name)

    def _first_consumer(self, namespace: str, claim: str) -> str | None:
        """The node of a pod that wants the claim; the pod is bound, and waits for its volume."""
        for pod in self._client.list("Pod"):
            if pod["metadata"]["namespace"] != namespace or not pod["spec"].get("nodeName"):
                continue
            for volume in pod["spec"].get("volumes") or ():
                if (volume.get("persistentVolumeClaim") or {}).get("claimName") == claim:
                    return str(pod["spec"]["nodeName"])
        return None
