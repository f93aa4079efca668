"""One container of a pod in the mock: a child process, started again as the kubelet does.

As ``pkg/kubelet/kuberuntime`` of kubernetes/kubernetes: the first restart comes at once, the next
after a pause that doubles and is forgotten after `HEALTHY_S` of running; exit codes of signals are
128 and the signal's number.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
import uuid
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgefleet.testing.cloud import process as children
from edgefleet_kubernetes.cloud.api_objects import now
from edgefleet_kubernetes.cloud.kubelet_environment import ConfigError, Image
from edgefleet_kubernetes.cloud.kubelet_images import Missing
from edgefleet_kubernetes.cloud.kubelet_probes import watchers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet_kubernetes.cloud.api_objects import Object

HEALTHY_S = 600.0
RETRY_S = 0.2  # of what may be there soon: a ConfigMap, a Secret
START_ERROR = 128
MESSAGE_BYTES, MESSAGE_LINES = 2048, 80  # of a log that stands for a termination message


class Start(NamedTuple):
    """What a process is started with."""

    words: Sequence[str]
    folder: Path
    environment: Mapping[str, str]


class Pod(Protocol):
    """What a container needs of its pod."""

    uid: str
    address: str
    title: str
    """For messages: ``name_namespace(uid)``."""
    backoff_s: float
    longest_backoff_s: float
    grace_s: float

    def image(self, container: Object, tell: Callable[[str, str, bool], None]) -> Image | Missing:
        """The container's image."""

    def start_of(self, container: Object, image: Image) -> Start:
        """What its process is started with.

        Raises:
            ConfigError: something that it needs isn't there.
        """

    def log(self, container: str, restarts: int) -> Path:
        """Where its output goes."""

    def tell(self, container: str, reason: str, message: str, *, warning: bool) -> None:
        """Make an Event."""

    def changed(self) -> None:
        """Note that its status is another."""


class Container:
    """A container; lives on one event loop.

    Args:
        pod: that it is of.
        spec: of the container.
        before: its status as it was before the node's power went; None for a new one.
        clock: monotonic seconds.

    Attributes:
        restarts: so far.
        ready: whether it can be sent work to.
        started: whether it has got through its startup probe.
        state: as its status has it.
    """

    def __init__(
        self,
        pod: Pod,
        spec: Object,
        before: Object | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name: str = spec["name"]
        self.restarts = 0
        self.ready = self.started = False
        self.state: Object = {"waiting": {"reason": "ContainerCreating"}}
        self.last_state: Object = {}
        self._pod, self._spec, self._clock = pod, spec, clock
        self._process: asyncio.subprocess.Process | None = None
        self._id = self._image_id = ""
        self._began = ""
        self._pause = 0.0
        self._killed = ""
        self._ending: asyncio.Task[bool] | None = None
        if before is not None and before.get("containerID"):
            self._go_on(before)

    def _go_on(self, before: Object) -> None:
        self.restarts = before["restartCount"] + 1
        self._image_id = before.get("imageID", "")
        ended = before["state"].get("terminated")
        if ended is None:
            began = (before["state"].get("running") or {}).get("startedAt") or now()
            ended = {
                "exitCode": 255,
                "reason": "Unknown",
                "startedAt": began,
                "finishedAt": now(),
                "containerID": before["containerID"],
            }
        self.last_state = {"terminated": ended}

    @property
    def pid(self) -> int | None:
        """Process id; None while none runs."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it hasn't."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    async def run(self, policy: str) -> int:
        """Run it, again and again as the policy says.

        Returns:
            The exit code of the last time.
        """
        while True:
            code = await self._once()
            if policy == "Never" or (policy == "OnFailure" and code == 0):
                return code
            await self._back_off()
            self.restarts += 1

    async def _once(self) -> int:
        image = await self._image()
        start = await self._prepared(image)
        began = self._clock()
        try:
            self._process = await children.start(
                start.words,
                folder=start.folder,
                environment=start.environment,
                log=self._pod.log(self.name, self.restarts),
            )
        except OSError as error:
            return self._not_started(start.words[0], error)
        self._id = f"containerd://{uuid.uuid4().hex}{uuid.uuid4().hex}"
        self._tell("Created", f"Created container: {self.name}")
        self._tell("Started", f"Started container {self.name}")
        self._began = now()
        self._killed = ""
        self._set({"running": {"startedAt": self._began}})
        code = await self._attend(self._process)
        if self._clock() - began >= HEALTHY_S:
            self._pause = 0.0
        return code

    async def _image(self) -> Image:
        while True:
            found = self._pod.image(self._spec, self._say)
            if not isinstance(found, Missing):
                self._image_id = f"{self._spec['image']}@sha256:mock"
                return found
            self._wait(found.reason, found.message)
            await asyncio.sleep(max(found.wait_s, RETRY_S))

    async def _prepared(self, image: Image) -> Start:
        while True:
            try:
                return self._pod.start_of(self._spec, image)
            except ConfigError as error:
                self._wait("CreateContainerConfigError", str(error))
                self._say("Failed", f"Error: {error}", True)
                await asyncio.sleep(RETRY_S)

    def _not_started(self, program: str, error: OSError) -> int:
        self._id = f"containerd://{uuid.uuid4().hex}{uuid.uuid4().hex}"
        why = (
            "executable file not found in $PATH"
            if isinstance(error, FileNotFoundError)
            else str(error.strerror)
        )
        message = (
            "failed to create containerd task: failed to create shim task: OCI runtime create "
            f'failed: runc create failed: unable to start container process: exec: "{program}": '
            f"{why}: unknown"
        )
        self._say("Failed", f"Error: {message}", True)
        self._end(START_ERROR, "StartError", message)
        return START_ERROR

    async def _attend(self, process: asyncio.subprocess.Process) -> int:
        """Ask its probes until it ends."""
        found = watchers(self._spec, self._pod.address, self._run_inside)
        startup = found.pop("startup", None)
        self.started, self.ready = startup is None, startup is None and "readiness" not in found
        self._pod.changed()
        async with asyncio.TaskGroup() as group:
            asking: list[asyncio.Task[None]] = []

            def ask_all() -> None:
                for kind, watcher in found.items():
                    told = self._on_ready if kind == "readiness" else self._on_live
                    asking.append(group.create_task(watcher.follow(told)))

            def on_startup(good: bool, why: str) -> None:  # noqa: FBT001 - a probe's verdict
                if not good:
                    self._unhealthy("Startup", why)
                    self._kill("failed startup probe")
                elif not self.started:
                    self.started = True
                    self.ready = "readiness" not in found
                    self._pod.changed()
                    ask_all()

            if startup is None:
                ask_all()
            else:
                asking.append(group.create_task(startup.follow(on_startup)))
            try:
                await process.wait()
            finally:
                for task in asking:
                    task.cancel()
        children.send(process, signal.SIGKILL)  # a container's first process takes the others along
        code = _exit_code(process)
        self._end(code, "Completed" if code == 0 else "Error", self._last_words(code))
        return code

    def _on_ready(self, good: bool, why: str) -> None:  # noqa: FBT001 - a probe's verdict
        if not good:
            self._unhealthy("Readiness", why)
        if good != self.ready:
            self.ready = good
            self._pod.changed()

    def _on_live(self, good: bool, why: str) -> None:  # noqa: FBT001 - a probe's verdict
        if not good:
            self._unhealthy("Liveness", why)
            self._kill("failed liveness probe")

    def _unhealthy(self, kind: str, why: str) -> None:
        self._tell("Unhealthy", f"{kind} probe failed: {why}", warning=True)

    def _kill(self, why: str) -> None:
        process = self._process
        if process is not None and process.returncode is None and not self._killed:
            self._killed = why
            self._tell("Killing", f"Container {self.name} {why}, will be restarted")
            task = asyncio.get_running_loop().create_task(children.end(process, self._pod.grace_s))
            self._ending = task

    async def end(self, grace_s: float, *, cut: bool = False) -> None:
        """End its process; no error when none runs."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            if not cut:
                self._tell("Killing", f"Stopping container {self.name}")
            await children.end(process, grace_s, cut=cut)
            if not cut:
                code = _exit_code(process)
                self._end(code, "Completed" if code == 0 else "Error", self._last_words(code))
        if self._ending is not None:
            await asyncio.wait([self._ending])

    async def _back_off(self) -> None:
        if not self._pause:
            self._pause = self._pod.backoff_s
            return
        pause, self._pause = self._pause, min(self._pause * 2, self._pod.longest_backoff_s)
        message = f"back-off {_duration(pause)} restarting failed container={self.name} "
        message += f"pod={self._pod.title}"
        ended = self.state
        self._tell(
            "BackOff",
            f"Back-off restarting failed container {self.name} in pod {self._pod.title}",
            warning=True,
        )
        self._wait("CrashLoopBackOff", message)
        self.last_state = ended
        await asyncio.sleep(pause)

    async def _run_inside(self, words: list[str], timeout_s: float) -> int:
        """Run a command as the container would; its exit code."""
        image = Image(tuple(words))
        start = self._pod.start_of({**self._spec, "command": words, "args": []}, image)
        process = await children.start(
            start.words,
            folder=start.folder,
            environment=start.environment,
            log=self._pod.log(f"{self.name}.exec", 0),
        )
        try:
            async with asyncio.timeout(timeout_s):
                return await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                await children.end(process, 0.0, cut=True)

    def _last_words(self, code: int) -> str:
        """What it said last, where that is its termination message; only after an error."""
        wanted = self._spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not code or not wanted:
            return ""
        lines = children.read_log(self._pod.log(self.name, self.restarts), MESSAGE_LINES)
        text = "".join(f"{line}\n" for line in lines).encode()[-MESSAGE_BYTES:]
        return text.decode(errors="ignore")

    # -- status

    def _set(self, state: Object) -> None:
        if "terminated" in self.state:
            self.last_state = self.state
        self.state = state
        self._pod.changed()

    def _wait(self, reason: str, message: str) -> None:
        self.ready = self.started = False
        state = {"waiting": {"reason": reason, "message": message}}
        if self.state != state:
            self._set(state)

    def _end(self, code: int, reason: str, message: str) -> None:
        if "terminated" in self.state:
            return
        self.ready = self.started = False
        self._set(
            {
                "terminated": {
                    "exitCode": code,
                    "reason": reason,
                    **({"message": message} if message else {}),
                    "startedAt": self._began or now(),
                    "finishedAt": now(),
                    "containerID": self._id,
                }
            }
        )

    def status(self) -> Object:
        """As the pod's status has it."""
        return {
            "name": self.name,
            "image": self._spec["image"],
            "imageID": self._image_id,
            **({"containerID": self._id} if self._id else {}),
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last_state,
        }

    def _say(self, reason: str, message: str, warning: bool) -> None:  # noqa: FBT001 - an Event's type
        self._tell(reason, message, warning=warning)

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        self._pod.tell(self.name, reason, message, warning=warning)


def _exit_code(process: asyncio.subprocess.Process) -> int:
    """Of a process that has ended; 128 and the number for one that a signal ended."""
    status = process.returncode or 0
    return 128 - status if status < 0 else status


def _duration(seconds: float) -> str:
    """As Go writes a duration of whole or part seconds."""
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"
