"""A node of the mock and its kubelet: runs what the API server has bound to it, and reports.

Rules kept here, each in ``mock_rules.md``:

- A node without a network goes on running its pods, and starts their containers again. One that
  gets its power back without a network starts none: what it should run, only the API server knows.
- A pod that is deleted gets its grace and is gone when it has ended. One that the API server no
  longer knows is ended, too.
- A node that is short of disk evicts pods, one at a time, and admits none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.testing.cloud.network import Forward, Network
from edgefleet_kubernetes.cloud.api_objects import clone, now
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.kubelet_images import NodeImages
from edgefleet_kubernetes.cloud.kubelet_pod import PodWorker
from edgefleet_kubernetes.cloud.kubelet_volumes import NodeDisk
from edgefleet_kubernetes.cloud.node_client import Client, with_condition
from edgefleet_kubernetes.cloud.node_proxy import NodeProxy
from edgefleet_kubernetes.cloud.node_tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.kubelet_environment import Image
    from edgefleet_kubernetes.cloud.kubelet_pod import Timing
    from edgefleet_kubernetes.cloud.node_addresses import Addresses
    from edgefleet_kubernetes.cloud.node_tokens import Issue

_log = logging.getLogger(__name__)
POLL_S = 0.2
_KEPT = ("HOME", "LANG")


class Api(NamedTuple):
    """How processes on nodes find the API server.

    Attributes:
        address: host and port that it listens at.
        issue: makes tokens of service accounts.
    """

    address: Callable[[], tuple[str, int]]
    issue: Issue


class Kubelet:
    """A node; lives on one event loop.

    Args:
        name: of the node.
        client: of the API server, used while the network is there.
        folder: for its disk, kept over power cuts.
        registry: images that can be pulled.
        addresses: of pods and Services.
        api: how its processes find the API server.
        timing: pauses.
        variables: of every container's environment, beside what Kubernetes gives.
        borrowed: gives variables of other clouds, for those that nothing here sets.

    Attributes:
        on: whether it has power.
        online: whether it has a network.
        workers: pods that run on it, by uid.
        full: whether its disk is.
    """

    def __init__(
        self,
        name: str,
        client: Client,
        *,
        folder: Path,
        registry: Mapping[str, Image],
        addresses: Addresses,
        api: Api,
        timing: Timing,
        variables: Mapping[str, str],
        borrowed: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.name, self.timing = name, timing
        self.on, self.online, self.full = False, True, False
        self.workers: dict[str, PodWorker] = {}
        self.host_address = addresses.of_node(name)
        self.network = Network()
        self.images = NodeImages(
            registry,
            backoff_s=timing.backoff_s,
            longest_s=timing.longest_backoff_s,
            reachable=lambda: self.online,
        )
        self._client, self._folder, self._addresses = client, folder, addresses
        self._variables, self._borrowed = dict(variables), borrowed
        self._door = Forward(api.address)
        self._volatile: Path | None = None
        self.proxy = NodeProxy(name, client, addresses)
        self.sources = Tokens(client, name, api.issue, reachable=lambda: self.online)
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._sent: dict[str, Object] = {}
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- power and network

    async def power_on(self) -> None:
        """Start; no error when it is on."""
        if self.on:
            return
        (self._folder / "disk").mkdir(parents=True, exist_ok=True)
        # A socket's path holds 108 bytes (unix(7)), a test's folder easily more.
        self._volatile = Path(tempfile.mkdtemp(prefix="edgefleet-node-", dir=_short()))
        self.on = True
        await self.network.start()
        await self._door.start()
        await self.proxy.start()
        self._sent = {}
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def power_off(self, *, cut: bool) -> None:
        """End all pods, in order or with ``cut`` at once; no error when it is off."""
        self.on = False
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=POLL_S)
        for ending in self._ending.values():
            ending.cancel()
        await asyncio.gather(
            *(one.stop(one.grace_s, cut=cut) for one in self.workers.values()),
            *self._ending.values(),
            return_exceptions=True,
        )
        self.workers, self._ending = {}, {}
        await self.proxy.stop()
        await self._door.stop()
        await self.network.stop()
        if self._volatile is not None:
            shutil.rmtree(self._volatile, ignore_errors=True)
            self._volatile = None

    def connect(self, online: bool) -> None:  # noqa: FBT001 - what it is set to
        """Give it a network, or take it away."""
        self.online = self.network.up = self._door.up = online
        if not online:
            self.network.cut()
            self._door.cut()
        self._sent = {}
        self.wake()

    def wake(self) -> None:
        """Look now; on the event loop's thread."""
        self._woken.set()

    @property
    def disk(self) -> NodeDisk:
        """Where it keeps things."""
        return NodeDisk(self._folder / "disk", self._volatile or self._folder / "volatile")

    # -- what pods need

    @property
    def base_environment(self) -> Mapping[str, str]:
        """What every container finds in its environment."""
        programs = str(Path(sys.executable).parent)  # this Python is in every image
        return {
            **self._borrowed(),
            **{key: os.environ[key] for key in _KEPT if key in os.environ},
            "PATH": os.pathsep.join((programs, os.environ.get("PATH", os.defpath))),
            "https_proxy": self.network.address,
            "no_proxy": "",
            "NO_PROXY": "",
            **self._variables,
        }

    def services(self, namespace: str) -> Mapping[str, str]:
        """Variables of a namespace's Services, and of the API server's."""
        host, port = self._door.host, str(self._door.port)
        return {
            **self.proxy.variables(namespace),
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBERNETES_SERVICE_PORT_HTTPS": port,
            "KUBERNETES_PORT": f"tcp://{host}:{port}",
        }

    def resolve(self, namespace: str) -> Callable[[str], str | None]:
        """Gives the addresses of names, for a pod of a namespace."""

        def address(name: str) -> str | None:
            return self.proxy.resolve(name, namespace)

        return address

    def address_for(self, pod: Object) -> str:
        """A pod's own address."""
        return self._addresses.of_pod(pod)

    def tell(self, pod: Object, reason: str, message: str, path: str, *, warning: bool) -> None:
        """Make an Event; nobody hears of it without a network."""
        if self.online and self.on:
            self._client.event(pod, reason, message, warning=warning, path=path)

    def changed(self) -> None:
        """Note that a pod's status is another."""
        self._woken.set()

    # -- work

    async def _work(self) -> None:
        while True:
            try:
                await self.proxy.sync()
                if self.online:
                    self._sync()
            except Refused as refused:
                _log.info("node %s: %s", self.name, refused.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            self._woken.clear()

    def _sync(self) -> None:
        mine = {
            pod["metadata"]["uid"]: pod
            for pod in self._client.list("Pod")
            if pod["spec"].get("nodeName") == self.name
        }
        for uid, pod in mine.items():
            self._sync_pod(uid, pod)
        for uid in [uid for uid in self.workers if uid not in mine]:
            if self.workers[uid].ended and uid not in self._ending:
                self._forget(uid)
            else:
                self._end(uid, 0.0)
        for uid, worker in list(self.workers.items()):
            if uid in mine:
                self._report(mine[uid], worker)

    def _sync_pod(self, uid: str, pod: Object) -> None:
        going = pod["metadata"].get("deletionTimestamp")
        phase = (pod.get("status") or {}).get("phase")
        worker = self.workers.get(uid)
        if worker is None:
            if going and pod["metadata"].get("deletionGracePeriodSeconds"):
                self._lose(pod, phase)
            elif not going and phase not in ("Succeeded", "Failed"):
                self._begin(uid, pod)
        elif not going:
            worker.refresh()
        elif worker.ended and uid not in self._ending:
            self._report(pod, worker)
            self._client.delete(pod, grace_s=0)
            self._forget(uid)
        else:
            self._end(uid, float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))

    def _begin(self, uid: str, pod: Object) -> None:
        if self.full:
            message = "Pod was rejected: The node had condition: [DiskPressure]. "
            self._client.set_status(pod, phase="Failed", reason="Evicted", message=message)
            self.tell(pod, "Evicted", message, "", warning=True)
            return
        worker = PodWorker(clone(pod), self, self._pod_folder(uid))
        self.workers[uid] = worker
        worker.start()

    def _pod_folder(self, uid: str) -> Path:
        return self._folder / "pods" / uid

    def _end(self, uid: str, grace_s: float) -> None:
        if uid in self._ending:
            return
        worker = self.workers[uid]

        async def end() -> None:
            await worker.stop(grace_s)
            self._ending.pop(uid, None)
            self.wake()

        self._ending[uid] = asyncio.get_running_loop().create_task(end())

    def _lose(self, pod: Object, phase: str | None) -> None:
        """Be done with a pod that was deleted, and of which nothing runs here."""
        if phase not in ("Succeeded", "Failed"):
            self._client.set_status(pod, phase="Failed")
        self._client.delete(pod, grace_s=0)

    def _forget(self, uid: str) -> None:
        self.workers.pop(uid).remove()
        self._sent.pop(uid, None)

    def _report(self, pod: Object, worker: PodWorker) -> None:
        status = worker.status()
        if self._sent.get(worker.uid) == status:
            return
        shown = clone(status)

        def edit(found: Object) -> None:
            mine = found.setdefault("status", {})
            conditions = shown.pop("conditions")
            mine.update(shown)
            for one in conditions:
                with_condition(mine, one)

        if self._client.change(pod, edit, subresource="status") is not None:
            self._sent[worker.uid] = status

    # -- disk

    async def fill_disk(self) -> None:
        """Be short of disk: evict what runs, one pod at a time, and admit none."""
        self.full = True
        if self.online:
            self.register({})
        for worker in list(self.workers.values()):
            if worker.phase in ("Succeeded", "Failed") or worker.uid in self._ending:
                continue
            message = "The node was low on resource: ephemeral-storage. "
            self.tell(worker.pod, "Evicted", message, "", warning=True)
            target = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "message": message,
            }
            await worker.evict("Evicted", message, condition=target)

    def free_disk(self) -> None:
        """Have room again."""
        self.full = False
        if self.online:
            self.register({})

    # -- the Node object

    def register(self, wanted: Object) -> None:
        """Have a Node object that says how the node is.

        Args:
            wanted: of a new one: labels, annotations, taints, capacity.
        """
        found = self._client.get("Node", "", self.name)
        if found is None:
            labels = {
                "kubernetes.io/hostname": self.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                **wanted.get("labels", {}),
            }
            meta = {"name": self.name, "labels": labels}
            if wanted.get("annotations"):
                meta["annotations"] = wanted["annotations"]
            spec = {"taints": wanted["taints"]} if wanted.get("taints") else {}
            found = self._client.create(
                {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec}
            )
        capacity = wanted.get("capacity")

        def edit(node: Object) -> None:
            status = node.setdefault("status", {})
            if capacity:
                status["capacity"] = dict(capacity)
            status.setdefault("capacity", {})
            status["allocatable"] = dict(status["capacity"])
            status["addresses"] = [
                {"type": "InternalIP", "address": self.host_address},
                {"type": "Hostname", "address": self.name},
            ]
            status["nodeInfo"] = _node_info(self.name)
            for one in _conditions(full=self.full):
                with_condition(status, {**one, "lastHeartbeatTime": now()})

        self._client.change(found, edit, subresource="status")


def _conditions(*, full: bool) -> list[Object]:
    fine = {
        "MemoryPressure": ("KubeletHasSufficientMemory", "sufficient memory"),
        "DiskPressure": ("KubeletHasNoDiskPressure", "no disk pressure"),
        "PIDPressure": ("KubeletHasSufficientPID", "sufficient PID"),
    }
    found = [
        {
            "type": name,
            "status": "False",
            "reason": reason,
            "message": f"kubelet has {words} available"
            if "suff" in words
            else f"kubelet has {words}",
        }
        for name, (reason, words) in fine.items()
    ]
    if full:
        found[1].update(
            status="True", reason="KubeletHasDiskPressure", message="kubelet has disk pressure"
        )
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    return [*found, {**ready, "message": "kubelet is posting ready status"}]


def _node_info(name: str) -> Object:
    return {
        "machineID": name,
        "systemUUID": name,
        "bootID": name,
        "kernelVersion": "mock",
        "osImage": "EdgeFleet mock",
        "containerRuntimeVersion": "containerd://mock",
        "kubeletVersion": "v1.34.0",
        "kubeProxyVersion": "v1.34.0",
        "operatingSystem": "linux",
        "architecture": "amd64",
    }


def _short() -> str | None:
    """A folder with a short name for sockets, whatever TMPDIR says."""
    return "/tmp" if len(tempfile.gettempdir()) > 40 else None  # noqa: S108 - see above
