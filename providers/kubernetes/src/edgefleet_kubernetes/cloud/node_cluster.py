"""A cluster's nodes and controllers, on one event loop in a thread of its own.

A change of an object wakes whoever might have to do with it; nobody waits longer than `POLL_S`.
Heartbeats are taken in the same turn that looks for silent nodes, so that a machine that sleeps
for a moment takes no node for dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from edgefleet.errors import NotFoundError, WaitTimeoutError
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.daemon_set_controller import COMPONENT as DAEMON_SETS
from edgefleet_kubernetes.cloud.daemon_set_controller import DaemonSetController
from edgefleet_kubernetes.cloud.daemon_sets import target_node
from edgefleet_kubernetes.cloud.job_controller import COMPONENT as JOBS
from edgefleet_kubernetes.cloud.job_controller import JobController
from edgefleet_kubernetes.cloud.kubelet import Kubelet
from edgefleet_kubernetes.cloud.kubelet_pod import Timing
from edgefleet_kubernetes.cloud.node_addresses import Addresses
from edgefleet_kubernetes.cloud.node_archives import import_archive
from edgefleet_kubernetes.cloud.node_claims import Claims
from edgefleet_kubernetes.cloud.node_client import Client
from edgefleet_kubernetes.cloud.node_disruption import Disruption
from edgefleet_kubernetes.cloud.node_lifecycle import NodeLifecycle
from edgefleet_kubernetes.cloud.node_logs import Followed, LineTimes, read_log
from edgefleet_kubernetes.cloud.node_matching import is_true
from edgefleet_kubernetes.cloud.scheduler import COMPONENT as SCHEDULER
from edgefleet_kubernetes.cloud.scheduler import Scheduler
from edgefleet_kubernetes.cloud.train_jobs import TrainJobController

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping
    from datetime import datetime

    from edgefleet_kubernetes.cloud.api_kinds import Kind
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.api_store import Store
    from edgefleet_kubernetes.cloud.kubelet import Api
    from edgefleet_kubernetes.cloud.kubelet_environment import Image

_log = logging.getLogger(__name__)
T = TypeVar("T")

POLL_S = 0.1
SETTLE_S = 120.0
CAPACITY = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "64Gi", "pods": "110"}
_DULL = ("Event", "Lease")


class _Node(NamedTuple):
    variables: dict[str, str]
    wanted: dict[str, Any]
    on: bool = True


class Cluster:
    """Nodes that can be powered on and off, and the controllers of a cluster; from any thread.

    Args:
        store: the API server's objects.
        root: a folder; each node keeps its disk below it.
        images: what can be pulled; more can be added.
        api: how processes on nodes find the API server.
        timing: pauses.
        borrowed: gives variables of other clouds, which containers find in their environment too.
    """

    def __init__(
        self,
        store: Store,
        root: Path,
        *,
        images: dict[str, Image],
        api: Api,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        borrowed: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.images = images
        self._line_times = LineTimes()
        self._store, self._root = store, root
        self._api, self._timing, self._borrowed = api, timing, borrowed
        self._addresses = Addresses()
        self._nodes: dict[str, _Node] = {}
        self._kubelets: dict[str, Kubelet] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._lifecycle = NodeLifecycle(
            Client(store, "node-controller"),
            grace_s=timing.heartbeat_grace_s,
            eviction_s=timing.eviction_s,
        )
        self._controllers = (
            TrainJobController(Client(store, "trainer")),
            DaemonSetController(Client(store, DAEMON_SETS), backoff_s=timing.backoff_s),
            JobController(Client(store, JOBS), backoff_s=timing.job_backoff_s),
            Claims(Client(store, "persistentvolume-controller")),
            Scheduler(Client(store, SCHEDULER)),
            Disruption(Client(store, "controllermanager")),
        )

    # -- life

    def start(self) -> None:
        """Have controllers work; no error when they do."""
        if self._loop is not None:
            return
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="mock-cluster", daemon=True
        )
        self._thread.start()
        self._store.on_write.append(self._noted)

        async def begin() -> None:
            self._task = asyncio.get_running_loop().create_task(self._work())

        self.call(begin())
        for name, node in self._nodes.items():
            self._place(name)
            if node.on:
                self.power_on(name)

    def stop(self) -> None:
        """Shut every node down in order and end; may be called twice."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        for name, node in self._nodes.items():
            self._nodes[name] = node._replace(on=self._kubelets[name].on)
        self._store.on_write.remove(self._noted)

        async def end() -> None:
            task, self._task = self._task, None
            while task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=POLL_S)
            await asyncio.gather(*(one.power_off(cut=False) for one in self._kubelets.values()))

        self.call(end())
        self._kubelets = {}
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _noted(self, kind: Kind, before: Object | None, after: Object | None) -> None:
        """Wake who might have to do with a change; the store's lock is held."""
        del before, after
        loop = self._loop
        if loop is not None and kind.kind not in _DULL:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        self._woken.set()
        for kubelet in tuple(self._kubelets.values()):
            kubelet.wake()

    async def _work(self) -> None:
        while True:
            for name, kubelet in tuple(self._kubelets.items()):  # callers add nodes meanwhile
                if kubelet.on and kubelet.online:
                    self._beat(name, kubelet)
            for one in (self._lifecycle, *self._controllers):
                try:
                    one.reconcile()
                except Refused as refused:
                    _log.info("%s: %s", type(one).__name__, refused.message)
                except Exception:  # noqa: BLE001 - a fault of one stops no other
                    _log.exception("%s", type(one).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            self._woken.clear()

    def _beat(self, name: str, kubelet: Kubelet) -> None:
        self._lifecycle.hear(name)
        node = self._store.find("Node", name)
        if node is None or not is_true(node, "Ready"):
            kubelet.register(self._nodes[name].wanted)

    # -- nodes

    def add_node(
        self,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        resources: Mapping[str, str] | None = None,
        taints: tuple[Object, ...] = (),
        variables: Mapping[str, str] | None = None,
        on: bool = True,
    ) -> None:
        """Put a node there and power it on; no error when it is there.

        Args:
            name: of the node.
            labels: of the node.
            annotations: likewise.
            resources: beside `CAPACITY`, or in its place: ``{"nvidia.com/gpu": "1"}``.
            taints: that it comes with.
            variables: of the environment of its containers.
            on: False leaves it without power.
        """
        if name not in self._nodes:
            wanted = {
                "labels": dict(labels or {}),
                "annotations": dict(annotations or {}),
                "taints": list(taints),
                "capacity": {**CAPACITY, **(resources or {})},
            }
            self._nodes[name] = _Node(dict(variables or {}), wanted)
        self._place(name)
        if on:
            self.power_on(name)

    def _place(self, name: str) -> None:
        if name in self._kubelets:
            return
        self._kubelets[name] = Kubelet(
            name,
            Client(self._store, "kubelet", name),
            folder=self._root / name,
            registry=self.images,
            addresses=self._addresses,
            api=self._api,
            timing=self._timing,
            variables=self._nodes[name].variables,
            borrowed=self._borrowed,
        )

    def remove_node(self, name: str) -> None:
        """Take a node out of the cluster, in order."""
        kubelet = self.kubelet(name)
        self.call(kubelet.power_off(cut=False))
        del self._kubelets[name], self._nodes[name]
        with contextlib.suppress(Refused):
            self._store.delete("Node", name)

    def power_on(self, name: str) -> None:
        """Give a node its power back; no error when it has it."""
        kubelet = self.kubelet(name)
        wanted = self._nodes[name].wanted

        async def on() -> None:
            await kubelet.power_on()
            if kubelet.online:
                self._lifecycle.hear(name)
                kubelet.register(wanted)

        self.call(on())

    def power_off(self, name: str) -> None:
        """Pull a node's plug; no error when it was pulled before."""
        self.call(self.kubelet(name).power_off(cut=True))

    def cut_network(self, name: str) -> None:
        """Take a node's network away; its pods go on."""
        self.call(self._connect(name, online=False))

    def restore_network(self, name: str) -> None:
        """Give it back."""
        self.call(self._connect(name, online=True))

    async def _connect(self, name: str, *, online: bool) -> None:
        self.kubelet(name).connect(online)

    def fill_disk(self, name: str) -> None:
        """Have a node short of disk: it evicts its pods."""
        self.call(self.kubelet(name).fill_disk())

    def free_disk(self, name: str) -> None:
        """Have room on it again."""

        async def free() -> None:
            self.kubelet(name).free_disk()

        self.call(free())

    def make_folder(self, name: str, path: str) -> Path:
        """Have a folder on a node's disk; where it is here."""
        folder = self.kubelet(name).disk.place(path)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def import_image(self, name: str, archive: Path) -> str:
        """Bring an image to a node as an archive, for volumes; its name.

        Raises:
            InvalidInputError: it breaks the image specification.
        """
        return import_archive(archive, self.kubelet(name).disk.images)

    def kubelet(self, name: str) -> Kubelet:
        """A node.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self._kubelets.get(name)
        if found is None:
            raise NotFoundError(f"no node {name!r} in the mock")
        return found

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes."""
        return tuple(self._nodes)

    # -- looking

    def pids(self, name: str) -> dict[str, int]:
        """Process ids of what runs on a node, by ``POD/CONTAINER``."""
        return {
            f"{worker.pod['metadata']['name']}/{one.name}": one.pid
            for worker in list(self.kubelet(name).workers.values())
            for one in worker.containers.values()
            if one.pid is not None
        }

    def pid(self, name: str, container: str) -> int | None:
        """Process id of a container on a node; None while none of that name runs."""
        found = (pid for key, pid in self.pids(name).items() if key.rpartition("/")[2] == container)
        return next(found, None)

    def pod(self, namespace: str, name: str) -> Object:
        """A pod.

        Raises:
            Refused: there is none of that name (404).
        """
        return self._store.get("Pod", name, namespace)

    def answers(self, pod: Object) -> bool:
        """Whether a pod's node can be reached."""
        kubelet = self._kubelets.get(pod["spec"].get("nodeName") or "")
        return kubelet is not None and kubelet.on and kubelet.online

    def log(
        self, namespace: str, pod: str, container: str = "", *, previous: bool = False
    ) -> Iterator[bytes]:
        """What a container has printed.

        Raises:
            Refused: it hasn't begun, there is no such container, or its node doesn't answer.
        """
        return read_log(self._followed(namespace, pod), container, previous=previous)

    def timed_log(
        self, namespace: str, pod: str, container: str = "", *, previous: bool = False
    ) -> list[tuple[datetime, bytes]]:
        """What a container has printed, each line with its time.

        Raises:
            Refused: as `log`.
        """
        followed = self._followed(namespace, pod)
        return followed.timed(self._line_times, container, previous=previous)

    def follow_log(
        self, namespace: str, pod: str, container: str = "", *, timeout_s: float | None = None
    ) -> Iterator[bytes]:
        """What a container has printed, and prints until it ends.

        Raises:
            Refused: as `log`.
        """
        followed = self._followed(namespace, pod)
        return followed.follow(container, timeout_s=timeout_s)

    def _followed(self, namespace: str, name: str) -> Followed:
        pod = self._store.get("Pod", name, namespace)
        node = pod["spec"].get("nodeName") or ""
        return Followed(pod, self._kubelets.get(node), self._root / node)

    def settle(self, name: str, timeout_s: float = SETTLE_S) -> None:
        """Wait until the pods that DaemonSets have for a node run, startup probes passed.

        Raises:
            WaitTimeoutError: they don't by then.
        """
        until = time.monotonic() + timeout_s
        while not self._is_settled(name):
            if time.monotonic() > until:
                raise WaitTimeoutError(f"pods of node {name} don't run after {timeout_s:.0f} s")
            time.sleep(POLL_S)

    def _is_settled(self, name: str) -> bool:
        sets = self._store.list("DaemonSet")
        if any(
            (found.get("status") or {}).get("observedGeneration") != found["metadata"]["generation"]
            for found in sets
        ):
            return False
        mine = [
            pod
            for pod in self._store.list("Pod")
            if target_node(pod) == name
            and any(
                one["kind"] == "DaemonSet" for one in pod["metadata"].get("ownerReferences") or ()
            )
        ]
        kubelet = self.kubelet(name)
        running = (kubelet.workers.get(pod["metadata"]["uid"]) for pod in mine)
        return (
            kubelet.on
            and kubelet.online
            and all(worker is not None and worker.runs for worker in running)
        )

    # -- keeping

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """The nodes, as they were before `stop`."""
        return {name: list(node) for name, node in self._nodes.items()}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Know these nodes, with their disks; those that were on go on with `start`."""
        self._nodes = {name: _Node(*fields) for name, fields in kept.items()}

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the cluster's event loop, and wait for it."""
        if self._loop is None:
            work.close()
            raise NotFoundError("the cluster doesn't run", cure="start it first")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
