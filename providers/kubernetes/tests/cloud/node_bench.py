"""A cluster with nodes that run real processes, and objects to put into it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.kubelet import Api
from edgefleet_kubernetes.cloud.kubelet_environment import Image
from edgefleet_kubernetes.cloud.kubelet_pod import Timing
from edgefleet_kubernetes.cloud.node_cluster import Cluster

Object = dict[str, Any]
NAMESPACE = "plant"
IMAGE, OTHER, BROKEN = "registry.test/app:1", "registry.test/app:2", "registry.test/app:broken"
FAST = Timing(
    backoff_s=0.1,
    longest_backoff_s=0.4,
    heartbeat_grace_s=0.5,
    eviction_s=0.5,
    job_backoff_s=0.05,
)
SLEEP = "import time; print('up', flush=True); time.sleep(3600)"
READY = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ok = self.path != "/ready" or os.path.exists(os.environ.get("GATE", "/"))
        self.send_response(200 if ok else 503); self.end_headers()
        self.wfile.write(os.environ.get("NODE_NAME", "").encode())
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
""".replace('"0.0.0.0"', 'os.environ["HOST"]')


def python(source: str, *args: str, **more: Any) -> Object:
    """A container that runs a program."""
    return {"name": "app", "image": IMAGE, "command": ["python", "-c", source, *args], **more}


def serving(port: int = 8080, **more: Any) -> Object:
    """A container that answers its node's name over HTTP."""
    return python(
        READY,
        str(port),
        **{
            "env": [
                {"name": "HOST", "value": "0.0.0.0"},
                {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ],
            "ports": [{"name": "http", "containerPort": port}],
            **more,
        },
    )


def pod(name: str = "one", *containers: Object, **spec: Any) -> Object:
    """A pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {
            "containers": list(containers) or [python(SLEEP)],
            "terminationGracePeriodSeconds": 20,
            **spec,
        },
    }


def daemon_set(name: str = "agent", *containers: Object, **spec: Any) -> Object:
    """A DaemonSet for nodes of the group ``line``."""
    more = spec.pop("pod", {})
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "nodeSelector": {"group": "line"},
                    "containers": list(containers) or [python(SLEEP)],
                    "terminationGracePeriodSeconds": 20,
                    **more,
                },
            },
            **spec,
        },
    }


def job(name: str = "train", source: str = "print('done')", **spec: Any) -> Object:
    """A Job."""
    more = spec.pop("pod", {})
    template = {"spec": {"restartPolicy": "Never", "containers": [python(source)], **more}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"template": template, **spec},
    }


def config_map(name: str, **data: str) -> Object:
    """A ConfigMap."""
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def node(
    name: str = "n-1",
    *,
    labels: Mapping[str, str] | None = None,
    taints: tuple[Object, ...] = (),
    resources: Mapping[str, str] | None = None,
) -> Object:
    """A Node for what needs no cluster."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
        "spec": {"taints": list(taints)},
        "status": {
            "allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10", **(resources or {})},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


class Bench:
    """A cluster.

    Args:
        folder: for nodes' disks.
        timing: pauses.
    """

    def __init__(self, folder: Path, timing: Timing = FAST) -> None:
        self.store = Store()
        self.folder = folder
        self.tokens: list[tuple[str, str | None, str]] = []
        image = Image((sys.executable,))
        self.images = {IMAGE: image, OTHER: image}
        self.cluster = self._cluster(timing)
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        if self.store.find("Namespace", NAMESPACE) is None:
            self.store.create(namespace)
        self.cluster.start()

    def _cluster(self, timing: Timing) -> Cluster:
        api = Api(address=lambda: ("127.0.0.1", 9), issue=self.issue)
        return Cluster(self.store, self.folder, images=self.images, api=api, timing=timing)

    def issue(
        self, namespace: str, account: str, *, audience: str | None, expires_s: int, pod: Object
    ) -> str:
        """A token of a service account, which tells what it is."""
        node = pod["spec"]["nodeName"]
        self.tokens.append((account, audience, node))
        claims = {"namespace": namespace, "node": node, "number": len(self.tokens)}
        return json.dumps({**claims, "expires_s": expires_s})

    def create(self, document: Object) -> Object:
        """Have an object."""
        return self.store.create(document)

    def pod(self, name: str = "one") -> Object | None:
        """A pod as it is."""
        return self.store.find("Pod", name, NAMESPACE)

    def pods(self, app: str = "agent") -> list[Object]:
        """Pods of an app."""
        return self.store.list("Pod", NAMESPACE, labels=f"app={app}")

    def phase(self, name: str = "one") -> str:
        """A pod's phase; empty where there is none."""
        found = self.pod(name)
        return "" if found is None else found["status"]["phase"]

    def ready(self, name: str = "one") -> bool:
        """Whether a pod is ready."""
        return is_ready(self.pod(name) or {})

    def state(self, name: str = "one", container: int = 0) -> Object:
        """The state of a pod's container."""
        statuses = ((self.pod(name) or {}).get("status") or {}).get("containerStatuses") or ()
        found: Object = statuses[container]["state"] if statuses else {}
        return found

    def waiting(self, name: str = "one") -> str:
        """Why a pod's container waits; empty where it doesn't."""
        return str((self.state(name).get("waiting") or {}).get("reason", ""))

    def log(self, name: str = "one", container: str = "", *, previous: bool = False) -> str:
        """What a container has printed; empty where it hasn't begun."""
        try:
            chunks = self.cluster.log(NAMESPACE, name, container, previous=previous)
            return b"".join(chunks).decode()
        except Refused:
            return ""

    def events(self, name: str) -> dict[str, str]:
        """Messages of an object's Events by their reason, the last of each."""
        return {
            one["reason"]: one["message"]
            for one in self.store.list("Event", NAMESPACE)
            if one["involvedObject"]["name"] == name
        }

    def find(self, kind: str, name: str) -> Object:
        """An object of the namespace."""
        return self.store.get(kind, name, NAMESPACE)

    def status(self, kind: str, name: str) -> Object:
        """The status of an object of the namespace; empty where there is none."""
        found: Object = (self.store.find(kind, name, NAMESPACE) or {}).get("status") or {}
        return found

    def node(self, name: str) -> Object:
        """A Node."""
        return self.store.get("Node", name)

    def stop(self) -> None:
        """End all."""
        self.cluster.stop()
        self.store.close()


def condition(thing: Object, name: str) -> Object:
    """A condition of an object; empty where it isn't there."""
    for one in (thing.get("status") or {}).get("conditions") or ():
        if one["type"] == name:
            found: Object = one
            return found
    return {}


def is_ready(thing: Object) -> bool:
    """Whether an object is ready."""
    return condition(thing, "Ready").get("status") == "True"
