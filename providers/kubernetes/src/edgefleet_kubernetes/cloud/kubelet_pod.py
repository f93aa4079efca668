"""One pod on a node of the mock: its volumes, its containers in their order, its status.

As ``pkg/kubelet`` of kubernetes/kubernetes: init containers run one after the other, those that
restart always run on beside the rest; the pod has ended when its containers have and none is
started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgefleet_kubernetes.cloud.api_objects import now
from edgefleet_kubernetes.cloud.kubelet_container import Container, Start
from edgefleet_kubernetes.cloud.kubelet_environment import (
    ConfigError,
    Image,
    Rewriting,
    command,
    environment,
)
from edgefleet_kubernetes.cloud.kubelet_volumes import NotYetError, Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.kubelet_images import Missing, NodeImages
    from edgefleet_kubernetes.cloud.kubelet_volumes import NodeDisk, Sources

_log = logging.getLogger(__name__)
MOUNT_RETRY_S = 0.2
TOKEN_LOOK_S = 1.0  # between looks at whether tokens must be had anew


class Timing(NamedTuple):
    """Pauses of the mock; what they are on a real node stands behind.

    Attributes:
        backoff_s: the first before a container or a pull is tried again; 10 s.
        longest_backoff_s: 300 s.
        volume_lag_s: from a change of a ConfigMap or Secret to the files; 60 to 120 s.
        heartbeat_grace_s: until a silent node isn't ready; 50 s.
        eviction_s: until pods leave a node that isn't ready; 300 s.
        job_backoff_s: the first before a Job makes another pod; 10 s.
    """

    backoff_s: float = 1.0
    longest_backoff_s: float = 30.0
    volume_lag_s: float = 0.0
    heartbeat_grace_s: float = 2.0
    eviction_s: float = 5.0
    job_backoff_s: float = 1.0


class Node(Protocol):
    """What a pod needs of its node."""

    name: str
    host_address: str
    images: NodeImages
    timing: Timing

    @property
    def disk(self) -> NodeDisk:
        """Where the node keeps things."""

    @property
    def sources(self) -> Sources:
        """Contents of volumes."""

    @property
    def base_environment(self) -> Mapping[str, str]:
        """What every container finds in its environment."""

    def services(self, namespace: str) -> Mapping[str, str]:
        """Variables of a namespace's Services."""

    def resolve(self, namespace: str) -> Callable[[str], str | None]:
        """Gives the addresses of names, for a pod of a namespace."""

    def address_for(self, pod: Object) -> str:
        """The pod's own address."""

    def tell(self, pod: Object, reason: str, message: str, path: str, *, warning: bool) -> None:
        """Make an Event."""

    def changed(self) -> None:
        """Note that a pod's status is another."""


class PodWorker:
    """A pod that runs; lives on one event loop.

    Args:
        pod: as the API server has it.
        node: that it runs on.
        folder: of its own, on the node's disk.

    Attributes:
        containers: by name, init containers among them.
        phase: as its status has it.
        ended: whether nothing of it runs any more, and nothing will.
    """

    def __init__(self, pod: Object, node: Node, folder: Path) -> None:
        self.pod, self._node, self._folder = pod, node, folder
        meta, spec = pod["metadata"], pod["spec"]
        self.uid: str = meta["uid"]
        self.title = f"{meta['name']}_{meta['namespace']}({self.uid})"
        self.backoff_s = node.timing.backoff_s
        self.longest_backoff_s = node.timing.longest_backoff_s
        self.grace_s = float(spec.get("terminationGracePeriodSeconds", 30))
        self.address = node.host_address if spec.get("hostNetwork") else node.address_for(pod)
        self.phase = "Pending"
        self.ended = False
        self._policy: str = spec.get("restartPolicy", "Always")
        self._why: dict[str, str] = {}
        self._conditions: dict[str, Object] = {}
        self._initialized = False
        self._volumes = Volumes(pod, folder, node.disk, node.sources)
        self._began = (pod.get("status") or {}).get("startTime") or now()
        before = _statuses(pod)
        self.containers = {
            one["name"]: Container(self, one, before.get(one["name"]))
            for one in (*(spec.get("initContainers") or ()), *spec["containers"])
        }
        self._rebooted = bool(before)
        self._stale, self._news = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- life

    def start(self) -> None:
        """Run."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def refresh(self) -> None:
        """Look whether volumes must be written anew, after the lag."""
        self._stale.set()

    async def stop(self, grace_s: float, *, cut: bool = False) -> None:
        """End it; with ``cut`` at once, as when the power goes. May be called twice."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=MOUNT_RETRY_S)
        ending = (one.end(grace_s, cut=cut) for one in self.containers.values())
        await asyncio.gather(*ending)
        if not cut and self.phase not in ("Succeeded", "Failed"):
            codes = [one.exit_code for one in self._main()]
            self.phase = "Succeeded" if all(code == 0 for code in codes) else "Failed"
        self.ended = True
        self._node.changed()

    async def evict(self, reason: str, message: str, *, condition: Object | None = None) -> None:
        """End it for the node's sake."""
        self._why = {"reason": reason, "message": message}
        if condition is not None:
            self._conditions[condition["type"]] = condition
        await self.stop(min(self.grace_s, 1.0))
        self.phase = "Failed"
        self._node.changed()

    def remove(self) -> None:
        """Remove its folders; its logs go, too."""
        self._volumes.remove()

    async def _run(self) -> None:
        try:
            if self._rebooted and self._policy == "Never":
                self.phase = "Failed"  # its containers went with the power, and aren't run again
                return
            await self._mount()
            keeping = asyncio.get_running_loop().create_task(self._keep_fresh())
            try:
                await self._run_containers()
            finally:
                keeping.cancel()
        except Exception:  # noqa: BLE001 - a fault of the mock is told, and ends this pod only
            _log.exception("pod %s of node %s", self.title, self._node.name)
            self.phase = "Failed"
        finally:
            if self.phase in ("Succeeded", "Failed"):
                self.ended = True
            self._node.changed()

    async def _mount(self) -> None:
        while True:
            try:
                self._volumes.mount()
            except (NotYetError, OSError) as error:
                message = f"MountVolume.SetUp failed for pod {self.title}: {error}"
                self._tell("FailedMount", message, warning=True)
                await asyncio.sleep(MOUNT_RETRY_S)
            else:
                return

    async def _run_containers(self) -> None:
        sidecars: list[asyncio.Task[int]] = []
        try:
            for spec in self.pod["spec"].get("initContainers") or ():
                one = self.containers[spec["name"]]
                if spec.get("restartPolicy") == "Always":
                    sidecars.append(asyncio.get_running_loop().create_task(one.run("Always")))
                    while not one.started:
                        await self._news.wait()
                        self._news.clear()
                    continue
                again = "Never" if self._policy == "Never" else "OnFailure"
                if await one.run(again):
                    self.phase = "Failed"
                    return
            self._initialized = True
            self.phase = "Running"
            self._node.changed()
            codes = await _all(one.run(self._policy) for one in self._main())
            self.phase = "Failed" if any(codes) else "Succeeded"
        finally:
            for task in sidecars:
                task.cancel()
        for spec in self.pod["spec"].get("initContainers") or ():
            await self.containers[spec["name"]].end(self.grace_s)

    async def _keep_fresh(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TOKEN_LOOK_S):
                    await self._stale.wait()
            if self._stale.is_set():
                await asyncio.sleep(self._node.timing.volume_lag_s)
                self._stale.clear()
            try:
                self._volumes.refresh()
            except OSError as error:
                _log.warning("volumes of %s: %s", self.title, error)

    def _main(self) -> list[Container]:
        return [self.containers[one["name"]] for one in self.pod["spec"]["containers"]]

    # -- what containers need

    def image(self, container: Object, tell: Callable[[str, str, bool], None]) -> Image | Missing:
        """The container's image."""
        return self._node.images.get(container, self.uid, tell)

    def start_of(self, container: Object, image: Image) -> Start:
        """What a container's process is started with.

        Raises:
            ConfigError: something that it needs isn't there.
        """
        namespace = self.pod["metadata"]["namespace"]
        try:
            folders = self._volumes.folders(container)
        except NotYetError as error:
            raise ConfigError(str(error)) from error
        rewrite = Rewriting(folders, self.address, self._node.resolve(namespace))
        pod = {**self.pod, "status": self.status()}
        own = environment(
            container,
            pod,
            objects=self._node.sources,
            services=self._node.services(namespace),
            rewrite=rewrite,
        )
        work = self._folder / "root" / container["name"]
        work.mkdir(parents=True, exist_ok=True)
        wanted = container.get("workingDir")
        folder = Path(rewrite(wanted)) if wanted else work
        if not folder.is_dir():
            folder = work
        everything = {
            **self._node.base_environment,
            "HOSTNAME": self.pod["spec"].get("hostname") or self.pod["metadata"]["name"],
            **({"TMPDIR": str(folders["/tmp"])} if "/tmp" in folders else {}),  # noqa: S108 - its mount
            **own,
        }
        return Start(command(container, image, everything, rewrite), folder, everything)

    def log(self, container: str, restarts: int) -> Path:
        """Where a container's output goes."""
        return self._folder / "logs" / container / f"{restarts}.log"

    def tell(self, container: str, reason: str, message: str, *, warning: bool) -> None:
        """Make an Event about a container."""
        init = {one["name"] for one in self.pod["spec"].get("initContainers") or ()}
        kind = "initContainers" if container in init else "containers"
        self._node.tell(self.pod, reason, message, f"spec.{kind}{{{container}}}", warning=warning)

    def _tell(self, reason: str, message: str, *, warning: bool) -> None:
        self._node.tell(self.pod, reason, message, "", warning=warning)

    def changed(self) -> None:
        """Note that the pod's status is another."""
        self._news.set()
        self._node.changed()

    # -- status

    @property
    def runs(self) -> bool:
        """Whether all its containers run, startup probes passed."""
        return all(one.pid is not None and one.started for one in self._main())

    @property
    def ready(self) -> bool:
        """Whether all its containers are ready."""
        return self.phase == "Running" and all(one.ready for one in self._main())

    def status(self) -> Object:
        """As the API server is told; conditions without times."""
        done = self.phase == "Succeeded"
        reason = {"reason": "PodCompleted"} if done else {}
        unready = [one.name for one in self._main() if not one.ready]
        message = f"containers with unready status: [{' '.join(unready)}]"
        why = reason or {"reason": "ContainersNotReady", "message": message}
        initialized = self._initialized or done
        waiting = [one.name for one in self.containers.values() if one not in self._main()]
        incomplete = {
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: [{' '.join(waiting)}]",
        }
        conditions = [
            {"type": "Initialized", **_truth(initialized, reason if done else {}, incomplete)},
            {"type": "Ready", **_truth(self.ready, {}, why)},
            {"type": "ContainersReady", **_truth(self.ready, {}, why)},
            *self._conditions.values(),
        ]
        init = [one.status() for one in self.containers.values() if one not in self._main()]
        return {
            "phase": self._shown_phase(),
            "conditions": conditions,
            "hostIP": self._node.host_address,
            "hostIPs": [{"ip": self._node.host_address}],
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self._began,
            "qosClass": qos_class(self.pod["spec"]),
            **self._why,
            **({"initContainerStatuses": init} if init else {}),
            "containerStatuses": [self._shown(one) for one in self._main()],
        }

    def _shown_phase(self) -> str:
        """Pending until every container has begun."""
        begun = all("waiting" not in one.state or one.last_state for one in self._main())
        return "Pending" if self.phase == "Running" and not begun else self.phase

    def _shown(self, container: Container) -> Object:
        status = container.status()
        later = not self._initialized and self.pod["spec"].get("initContainers")
        if later and "waiting" in status["state"]:
            status["state"] = {"waiting": {"reason": "PodInitializing"}}
        return status


def _truth(holds: bool, good: Mapping[str, str], bad: Mapping[str, str]) -> Object:  # noqa: FBT001 - a condition's
    return {"status": "True" if holds else "False", **(good if holds else bad)}


def _statuses(pod: Object) -> dict[str, Object]:
    """Statuses of containers that have run before."""
    status = pod.get("status") or {}
    every = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return {one["name"]: one for one in every if one.get("containerID")}


async def _all(works: Iterable[Coroutine[Any, Any, int]]) -> list[int]:
    """Results of all, which are cancelled together."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in works]
    return [task.result() for task in tasks]


def qos_class(spec: Object) -> str:
    """How a pod ranks when its node runs short, as ``pkg/apis/core/v1/helper/qos`` has it."""
    containers = (*(spec.get("initContainers") or ()), *spec["containers"])
    resources = [one.get("resources") or {} for one in containers]
    if not any(one.get("requests") or one.get("limits") for one in resources):
        return "BestEffort"
    exact = all(
        {"cpu", "memory"} <= set(one.get("limits") or {})
        and all(
            (one.get("requests") or {}).get(name, one["limits"][name]) == one["limits"][name]
            for name in ("cpu", "memory")
        )
        for one in resources
    )
    return "Guaranteed" if exact else "Burstable"
