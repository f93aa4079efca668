"""Services as a node's pods reach them: what kube-proxy and the cluster's names do.

Rules kept here:

- A Service has an address of its own on each node, and passes connections on to a ready pod. With
  ``internalTrafficPolicy: Local`` that is one on this node, or nobody.
- Names ``SERVICE.NAMESPACE[.svc[.cluster.local]]`` and, for pods of a headless Service,
  ``HOSTNAME.SUBDOMAIN`` are known in what manifests say; processes that look names up are not
  answered.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

from edgefleet.testing.cloud.network import Forward
from edgefleet_kubernetes.cloud.api_objects import selects
from edgefleet_kubernetes.cloud.node_matching import is_true

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_addresses import Addresses
    from edgefleet_kubernetes.cloud.node_client import Client

Key = tuple[str, str, int]
_NAME = re.compile(r"[^A-Za-z0-9]")


class NodeProxy:
    """A node's way to Services; lives on one event loop.

    Args:
        node: name of it.
        client: of the API server.
        addresses: of Services.
    """

    def __init__(self, node: str, client: Client, addresses: Addresses) -> None:
        self._node, self._client, self._addresses = node, client, addresses
        self._doors: dict[Key, Forward] = {}
        self._turn = itertools.count()
        self._on = False

    async def start(self) -> None:
        """Pass on what Services get."""
        self._on = True
        await self.sync()

    async def stop(self) -> None:
        """End it; may be called twice."""
        self._on = False
        doors, self._doors = self._doors, {}
        for door in doors.values():
            await door.stop()

    async def sync(self) -> None:
        """Listen for the Services that there are, and for no others."""
        if not self._on:
            return
        wanted: dict[Key, Object] = {}
        for service in self._client.list("Service"):
            if service["spec"].get("clusterIP") in (None, "None"):
                continue
            meta = service["metadata"]
            for port in service["spec"].get("ports") or ():
                wanted[meta["namespace"], meta["name"], port["port"]] = service
        for key in [key for key in self._doors if key not in wanted]:
            await self._doors.pop(key).stop()
        for key, service in wanted.items():
            if key not in self._doors:
                await self._open(key, service)

    async def _open(self, key: Key, service: Object) -> None:
        def target() -> tuple[str, int] | None:
            return self._endpoint(key)

        door = Forward(target, self._address(service), key[2])
        try:
            await door.start()
        except OSError:  # the port is another's here; the Service can't be reached by it
            return
        self._doors[key] = door

    def _endpoint(self, key: Key) -> tuple[str, int] | None:
        namespace, name, number = key
        service = self._client.get("Service", namespace, name)
        if service is None:
            return None
        port = next((one for one in service["spec"]["ports"] if one["port"] == number), None)
        pods = list(self.endpoints(service))
        if port is None or not pods:
            return None
        pod = pods[next(self._turn) % len(pods)]
        target = port.get("targetPort", number)
        found = target if isinstance(target, int) else _named_port(pod, target)
        return None if found is None else (pod["status"]["podIP"], found)

    def endpoints(self, service: Object) -> Iterable[Object]:
        """Ready pods that a Service passes connections of this node on to."""
        selector = service["spec"].get("selector")
        local = service["spec"].get("internalTrafficPolicy") == "Local"
        for pod in self._client.list("Pod"):
            meta = pod["metadata"]
            if (
                selector
                and meta["namespace"] == service["metadata"]["namespace"]
                and selects({"matchLabels": selector}, meta.get("labels") or {})
                and not meta.get("deletionTimestamp")
                and is_true(pod, "Ready")
                and (not local or pod["spec"].get("nodeName") == self._node)
            ):
                yield pod

    def _address(self, service: Object) -> str:
        meta = service["metadata"]
        ports = tuple(port["port"] for port in service["spec"].get("ports") or ())
        return self._addresses.of_service(self._node, meta["namespace"], meta["name"], ports)

    def variables(self, namespace: str) -> Mapping[str, str]:
        """What pods of a namespace are told of its Services, as docker's links did."""
        found: dict[str, str] = {}
        for service in self._client.list("Service"):
            meta, spec = service["metadata"], service["spec"]
            ports = spec.get("ports") or ()
            if meta["namespace"] != namespace or not ports or spec.get("clusterIP") == "None":
                continue
            start = _NAME.sub("_", meta["name"]).upper()
            host = self._address(service)
            found[f"{start}_SERVICE_HOST"] = host
            found[f"{start}_SERVICE_PORT"] = str(ports[0]["port"])
            found[f"{start}_PORT"] = f"tcp://{host}:{ports[0]['port']}"
            for port in ports:
                if port.get("name"):
                    name = _NAME.sub("_", port["name"]).upper()
                    found[f"{start}_SERVICE_PORT_{name}"] = str(port["port"])
        return found

    def resolve(self, name: str, namespace: str) -> str | None:
        """The address of a name in the cluster; None where it is none.

        Args:
            name: with at least one dot.
            namespace: of the pod that asks.
        """
        parts = name.removesuffix(".cluster.local").removesuffix(".svc").split(".")
        plain = len(parts) == 2
        if plain:
            service = self._client.get("Service", parts[1], parts[0])
            if service is not None and service["spec"].get("clusterIP") not in (None, "None"):
                return self._address(service)
        if plain or len(parts) == 3:
            where = namespace if plain else parts[2]
            headless = self._client.get("Service", where, parts[1])
            if headless is not None and headless["spec"].get("clusterIP") == "None":
                return self._addresses.of_name(parts[0], parts[1], where)
        return None


def _named_port(pod: Object, name: str) -> int | None:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == name:
                found: int = port["containerPort"]
                return found
    return None
