"""Logs of pods, as the API server has them from kubelets."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud.api_status import Refused, bad_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.kubelet import Kubelet

CHUNK = 64 << 10
LOOK_S = 0.05


class Followed:
    """The logs of one pod.

    Args:
        pod: as it is.
        kubelet: of its node; None where it has none.
        folder: of its node.
    """

    def __init__(self, pod: Object, kubelet: Kubelet | None, folder: Path) -> None:
        self._pod, self._kubelet = pod, kubelet
        self._folder = folder / "pods" / pod["metadata"]["uid"] / "logs"

    def place(self, container: str, *, previous: bool = False) -> Path:
        """The file with what a container has printed.

        Raises:
            Refused: it hasn't begun, there is no such container, or its node doesn't answer.
        """
        name = self._container(container)
        meta = self._pod["metadata"]
        if self._kubelet is None or not (self._kubelet.on and self._kubelet.online):
            node = self._pod["spec"].get("nodeName")
            if node is None:
                raise bad_request(f"pod {meta['name']} does not have a host assigned")
            raise Refused(
                500, "InternalError", f"Get https://{node}:10250: dial tcp: no route to host"
            )
        found: list[Path] = sorted(
            (self._folder / name).glob("*.log"), key=lambda one: int(one.stem)
        )
        if previous:
            if len(found) < 2:
                raise bad_request(
                    f'previous terminated container "{name}" in pod "{meta["name"]}" not found'
                )
            return found[-2]
        if not found:
            raise bad_request(
                f'container "{name}" in pod "{meta["name"]}" is waiting to start: '
                f"{self._reason(name)}"
            )
        return found[-1]

    def _container(self, name: str) -> str:
        spec, meta = self._pod["spec"], self._pod["metadata"]
        names = [one["name"] for one in spec["containers"]]
        init = [one["name"] for one in spec.get("initContainers") or ()]
        if not name:
            if len(names) > 1:
                raise bad_request(
                    f"a container name must be specified for pod {meta['name']}, choose one of: "
                    f"[{' '.join(names)}]"
                )
            return str(names[0])
        if name not in (*names, *init):
            raise bad_request(f"container {name} is not valid for pod {meta['name']}")
        return name

    def _reason(self, name: str) -> str:
        status = self._pod.get("status") or {}
        every = (
            *(status.get("initContainerStatuses") or ()),
            *(status.get("containerStatuses") or ()),
        )
        for one in every:
            if one["name"] == name and "waiting" in one["state"]:
                return str(one["state"]["waiting"].get("reason", "ContainerCreating"))
        return "ContainerCreating"

    def timed(
        self, times: LineTimes, container: str, *, previous: bool
    ) -> list[tuple[datetime, bytes]]:
        """What a container has printed so far, a line a time."""
        path, name = self.place(container, previous=previous), self._container(container)
        return times.lines(path, ended=previous or not self._runs(name))

    def follow(self, container: str, *, timeout_s: float | None = None) -> Iterator[bytes]:
        """What a container prints until it ends."""
        path, name = self.place(container), self._container(container)
        return self._tail(path, name, timeout_s)

    def _tail(self, path: Path, name: str, timeout_s: float | None) -> Iterator[bytes]:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with path.open("rb") as log:
            while True:
                running = self._runs(name)  # before reading: what came before its end is read
                while data := log.read(CHUNK):
                    yield data
                if not running or (until is not None and time.monotonic() > until):
                    return
                time.sleep(LOOK_S)

    def _runs(self, name: str) -> bool:
        kubelet = self._kubelet
        worker = None if kubelet is None else kubelet.workers.get(self._pod["metadata"]["uid"])
        return worker is not None and "terminated" not in worker.containers[name].state


def read_log(followed: Followed, container: str, *, previous: bool) -> Iterator[bytes]:
    """What a container has printed so far."""
    path = followed.place(container, previous=previous)

    def chunks() -> Iterator[bytes]:
        with path.open("rb") as log:
            while data := log.read(CHUNK):
                yield data

    return chunks()


class LineTimes:
    """When lines were printed: for the mock, when somebody first asked for them with their times.

    Processes write their logs themselves, so nobody saw the moment; times never go back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Path, list[datetime]] = {}

    def lines(self, path: Path, *, ended: bool) -> list[tuple[datetime, bytes]]:
        """The lines of a log, each with its time.

        Args:
            path: of the log.
            ended: whether nothing more comes, so that half a line counts, too.
        """
        with self._lock:
            found = path.read_bytes().splitlines(keepends=True)
            if found and not (ended or found[-1].endswith(b"\n")):
                found.pop()
            times = self._seen.setdefault(path, [])
            times += [datetime.now(UTC)] * (len(found) - len(times))
            return list(zip(times, found, strict=False))


def stamp(when: datetime) -> bytes:
    """A line's time as a kubelet writes it: nine digits of a second, whatever they are worth."""
    return f"{when:%Y-%m-%dT%H:%M:%S.%f}000Z ".encode()
