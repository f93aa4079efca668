"""A deployer over clusters of the mock, with nodes that nothing runs on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.api_users import service_account
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.deployer import KubernetesDeployer
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.names import fleet_labels, report_name
from edgefleet_kubernetes.settings import KubernetesSettings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.interfaces.state import StateStore
    from edgefleet_kubernetes.cloud.api_store import Store

IMAGE = "registry.example/edgefleet/runtime:1.0"
NODES = ("a", "b", "c", "broken", "fine", "late", "thief", "victim")
READY = {
    "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
    "nodeInfo": {
        "architecture": "amd64",
        "bootID": "1",
        "containerRuntimeVersion": "containerd://2.0.0",
        "kernelVersion": "6.1.0",
        "kubeProxyVersion": "",
        "kubeletVersion": "v1.33.0",
        "machineID": "1",
        "operatingSystem": "linux",
        "osImage": "Debian GNU/Linux 12",
        "systemUUID": "1",
    },
}


class Rig:
    """Clusters and a deployer of them.

    Args:
        folder: for the mock's own.
        state: of the profile.
        contexts: of the clusters.
        nodes: in the first of them.
        version: of Kubernetes; None for the newest.
        alive: whether controllers and kubelets work, so that things change by themselves.
    """

    def __init__(
        self,
        folder: Path,
        state: Callable[[], StateStore],
        *,
        contexts: tuple[str, ...] = ("site-1",),
        nodes: tuple[str, ...] = NODES,
        version: str | None = None,
        alive: bool = False,
    ) -> None:
        self.cloud = KubernetesMock(folder, clusters=contexts, version=version)
        self.cloud.start()
        if not alive:
            for context in contexts:
                self.cloud.cluster(context).nodes.stop()
        self.settings = KubernetesSettings(
            runtime_image=IMAGE,
            kubeconfig=self.cloud.kubeconfig,
            contexts=contexts,
            max_attempts=2,
        )
        self.state = state
        self._made: list[KubernetesDeployer] = []
        self.deployer = self.another()
        for name in nodes:
            self.add_node(name)

    def close(self) -> None:
        for deployer in self._made:
            deployer.close()
        self.cloud.stop()

    def another(self, **changes: Any) -> KubernetesDeployer:
        """Another operator's deployer."""
        settings = self.settings.model_copy(update=changes)
        made = KubernetesDeployer(Clients(settings), settings, state=self.state)
        self._made.append(made)
        return made

    def store(self, context: str = "site-1") -> Store:
        return self.cloud.cluster(context).store

    def add_node(self, name: str, *, context: str = "site-1", **metadata: Any) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, **metadata}}
        self.put(node, context=context)
        self.store(context).patch("Node", name, {"status": READY}, how=Write(subresource="status"))

    def put(
        self, document: dict[str, Any], *, context: str = "site-1", by: str = "kubectl"
    ) -> None:
        self.store(context).create(document, how=Write(manager=by))

    def versions(self, context: str = "site-1") -> dict[str, str]:
        """Resource versions of objects, but for those that a cluster makes by itself."""
        own = {"ControllerRevision", "Event", "Lease", "Node", "Pod"}
        objects = self.store(context).kept()["objects"]
        return {
            f"{kind} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}": one[
                "metadata"
            ]["resourceVersion"]
            for kind, found in objects.items()
            for one in found
            if kind not in own and one["metadata"]["name"] not in {"kube-root-ca.crt", "default"}
        }

    def report(
        self, by: str, about: str, data: dict[str, str], *, namespace: str = "edgefleet"
    ) -> None:
        """Write a report with a device's own rights, as its runtime does."""
        name, labels = report_name("edgefleet", about), fleet_labels("edgefleet", part="report")
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": f"{namespace}-reports", "labels": labels},
            "data": data,
        }
        how = replace(self.as_device(by, namespace), force=True)
        where = f"{namespace}-reports"
        self.store().patch("ConfigMap", name, document, where, type="apply", how=how)

    def as_device(self, node: str, namespace: str = "edgefleet") -> Write:
        """Writing as the pod of the runtime on a node."""
        account = self.store().get("ServiceAccount", "edgefleet-device", namespace)
        claims = {"authentication.kubernetes.io/node-name": (node,)}
        user = service_account(namespace, "edgefleet-device", account["metadata"]["uid"], claims)
        return Write(user=user, manager="edgefleet-runtime")
