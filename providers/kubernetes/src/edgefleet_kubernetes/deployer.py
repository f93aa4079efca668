"""The deployer: pointers in ConfigMaps, devices from nodes, reports from ConfigMaps of their own.

How pointers get into clusters is `pointers`' affair, who is in which group `groups`'. A device's
name is its node's: its report is the ConfigMap that has this name, which an admission policy lets
nobody else write. A pointer reaches a device that watches it within seconds, and one that reads the
mounted file when its kubelet brings it, 60 to 120 seconds later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import (
    AccessDeniedError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.interfaces.abilities import CanEnroll, CanInvoke, CanStreamLogs, Reply
from edgefleet.interfaces.deployer import Deployer, Limits
from edgefleet.interfaces.values import DeviceInfo, Group
from edgefleet.protocol import orders
from edgefleet_kubernetes.cluster import address
from edgefleet_kubernetes.clusters import Clusters
from edgefleet_kubernetes.errors import problem_of, reason_of
from edgefleet_kubernetes.groups import DeviceGroups
from edgefleet_kubernetes.install import InstallsKubernetes
from edgefleet_kubernetes.names import serving_secret
from edgefleet_kubernetes.pod import CONTAINER, ORDERS_KEY, ORDERS_PORT, PORT
from edgefleet_kubernetes.pointers import GroupPointers
from edgefleet_kubernetes.reading import is_running, read_member
from edgefleet_kubernetes.service import KubernetesService
from edgefleet_kubernetes.sight import Sight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet.interfaces.state import StateStore
    from edgefleet.interfaces.values import Rendered
    from edgefleet.protocol.pointer import Pointer
    from edgefleet_kubernetes.clients import Clients
    from edgefleet_kubernetes.cluster import Cluster
    from edgefleet_kubernetes.reading import Object
    from edgefleet_kubernetes.settings import KubernetesSettings

TOKEN_HEADER = "Edgefleet-Authorization"  # noqa: S105 - a header's name
"""The API server takes ``Authorization`` for itself and hands it on to nobody."""
_GATEWAY = {502, 504}  # what stands before an API server says so, and no runtime does


class KubernetesDeployer(
    KubernetesService, CanEnroll, CanInvoke, CanStreamLogs, InstallsKubernetes, Deployer
):
    """Nodes of clusters, whose runtimes are pods of a DaemonSet a group.

    Args:
        clients: to reach the clusters with; closed with the deployer.
        settings: contexts, namespace, prefix, the runtime's image.
        name: of this deployer in the profile.
        state: gives the profile's state store.
    """

    def __init__(
        self,
        clients: Clients,
        settings: KubernetesSettings,
        *,
        name: str = "kubernetes",
        state: Callable[[], StateStore],
    ) -> None:
        self.name = name
        self._clients = clients
        self._settings = settings
        self._clusters = Clusters(clients)
        self._members = DeviceGroups(self._clusters, settings)
        self._sight = Sight(self._clusters, self._members, settings)
        self._pointers = GroupPointers(
            self._clusters, self._members, settings, state, deployer=name
        )

    @property
    def limits(self) -> Limits:
        """No limit of groups; what an API server says is as new as it gets."""
        return Limits()

    # Groups and devices

    def _groups(self) -> Iterator[Group]:
        for name, count in self._members.counts().items():
            yield Group(name=name, deployer=self.name, devices=count)

    def _group(self, name: str) -> Group | None:
        return Group(name=name, deployer=self.name) if self._members.has(name) else None

    def _devices(self, group: str | None) -> Iterator[DeviceInfo]:
        return self._sight.devices(group)

    def _device(self, name: str) -> DeviceInfo | None:
        return self._sight.device(name)

    def _label(self, device: str, labels: Mapping[str, str | None]) -> None:
        self._members.label(device, labels)

    # Pointers

    def _pointer(self, group: str) -> Pointer | None:
        return self._pointers.read(group)

    def _held(self, group: str) -> Pointer | None:
        return self._pointers.held(group)

    def _render(self, group: str, pointer: Pointer) -> Iterator[Rendered]:
        return self._pointers.render(group, pointer)

    def _warnings(self, group: str, pointer: Pointer) -> Iterator[str]:
        return self._pointers.warnings(group, pointer)

    def _publish(self, group: str, pointer: Pointer) -> None:
        self._pointers.publish(group, pointer)

    # Enrolment

    def _enrolled_group(self, device: str) -> str | None:
        found = self._members.find(device)
        return None if found is None else found[1].group

    def _enroll(self, device: str, group: str, labels: dict[str, str]) -> DeviceInfo:
        """Have a node that is there run the runtime; a new group's DaemonSet is made first."""
        cluster, node = self._members.node(device)
        if self._members.daemon_set(cluster, group) is None:
            self._make_group(cluster, group)
        self._pointers.bring(cluster, group)
        if read_member(node, self._settings.prefix, cluster.context) is None:
            # A pod that was on its way out when the device was retired may have written another.
            self._members.forget(cluster, device)
        self._members.add(cluster, device, group, labels)
        found = self._device(device)
        if found is None:
            raise UnavailableError(
                f"device {device!r} was retired at the same time", cure="enrol it again"
            )
        return found

    def _make_group(self, cluster: Cluster, group: str) -> None:
        try:
            self._installation().install_group(cluster, group)
        except Exception as error:
            mapped = problem_of(error)
            if isinstance(mapped, AccessDeniedError):
                raise AccessDeniedError(
                    f"group {group} has no DaemonSet in {cluster.context}, and you may make none: "
                    f"{mapped.message}",
                    cure=f"let who may install run: edgefleet install --provider {self.name} "
                    f"--group {group}",
                ) from error
            raise

    def _retire(self, device: str) -> None:
        """Take the node out of the fleet; its pod goes, what is on its disk stays."""
        self._members.remove(device)

    # Requests and logs, by the API server's way to pods

    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        cluster, pod = self._pod_of(device)
        if not path.startswith("/"):
            raise InvalidInputError(f"not a path: {path[:200]!r}", cure="begin it with a slash")
        if not is_running(pod):
            raise UnavailableError(
                f"the runtime of device {device!r} doesn't run", cure="see why: edgefleet why"
            )
        name = pod["metadata"]["name"]
        ordered = path.startswith(orders.PREFIX)
        port, key = (ORDERS_PORT, ORDERS_KEY) if ordered else (PORT, "token")
        secret = self._token(cluster, key)
        pods = address("Pod", self._settings.namespace)
        try:
            reply = cluster.ask(
                f"{pods}/{name}:{port}/proxy{path}",
                body=body,
                headers={**headers, TOKEN_HEADER: f"Bearer {secret}"},
                timeout_s=timeout_s,
            )
        except Exception as error:
            if reason_of(error) != "ServiceUnavailable":
                raise
            raise _silent(device, str(error)) from error
        if reply.status in _GATEWAY:
            raise _silent(device, reply.body.decode(errors="replace"))
        return reply

    def _device_log(self, device: str, last: int) -> Iterator[str]:
        cluster, pod = self._pod_of(device)
        name = pod["metadata"]["name"]
        path = f"{address('Pod', self._settings.namespace, name)}/log"
        return cluster.lines(path, {"container": CONTAINER, "tailLines": str(last)})

    def _pod_of(self, device: str) -> tuple[Cluster, Object]:
        """The pod of a device's runtime.

        Raises:
            NotFoundError: no such device.
            UnavailableError: it has none now.
        """
        found = self._members.find(device)
        if found is None:
            raise NotFoundError(
                f"no device {device!r} on {self.name}", cure="list them with: edgefleet devices"
            )
        cluster, member = found
        pod = self._sight.pod(cluster, member)
        if pod is None:
            raise UnavailableError(
                f"device {device!r} has no pod of the runtime", cure="see why: edgefleet why"
            )
        return cluster, pod

    def _token(self, cluster: Cluster, key: str) -> str:
        import base64  # noqa: PLC0415 - for this alone

        name = serving_secret(self._settings.prefix)
        found = cluster.get("Secret", name, self._settings.namespace)
        if found is None:
            raise NotFoundError(
                f"no Secret {name} in {cluster.context}", cure="make it with: edgefleet install"
            )
        value = (found.get("data") or {}).get(key)
        if value is None:
            raise NotFoundError(
                f"Secret {name} in {cluster.context} has no {key!r}",
                cure="delete the Secret, then make it anew with: edgefleet install",
            )
        return base64.b64decode(value).decode("ascii").strip()


def _silent(device: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"device {device!r} doesn't answer: {why[:200]}",
        cure="see whether its runtime runs: edgefleet why",
    )
