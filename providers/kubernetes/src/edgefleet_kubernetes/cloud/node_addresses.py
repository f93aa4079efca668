"""Addresses of the mock's nodes, pods and Services: each one of 127.0.0.0/8.

So many pods listen at the same port, as pods of different nodes do. A pod with a host name and a
subdomain has its address before it is there: others are told it by name. See ``free_address``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.testing.cloud.network import free_address

if TYPE_CHECKING:
    from edgefleet_kubernetes.cloud.api_objects import Object


class Addresses:
    """All that were given, and to whom."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, ...], str] = {}

    def of_node(self, name: str) -> str:
        """A node's."""
        return self._give(("node", name))

    def of_pod(self, pod: Object) -> str:
        """A pod's; another pod that takes over its name takes over its address."""
        meta, spec = pod["metadata"], pod["spec"]
        if spec.get("hostname") and spec.get("subdomain"):
            return self.of_name(spec["hostname"], spec["subdomain"], meta["namespace"])
        ports = [
            port["containerPort"]
            for container in spec["containers"]
            for port in container.get("ports") or ()
        ]
        return self._give(("pod", meta["uid"]), *ports)

    def of_name(self, hostname: str, subdomain: str, namespace: str) -> str:
        """Of the pod that has, or will have, a host name in a subdomain."""
        return self._give(("name", namespace, subdomain, hostname))

    def of_service(self, node: str, namespace: str, name: str, ports: tuple[int, ...]) -> str:
        """Of a Service, as it is reached on a node."""
        return self._give(("service", node, namespace, name), *ports)

    def _give(self, key: tuple[str, ...], *ports: int) -> str:
        if key not in self._given:
            self._given[key] = free_address(*ports)
        return self._given[key]
