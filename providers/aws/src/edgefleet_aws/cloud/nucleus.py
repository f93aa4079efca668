"""A core device of the mock: a stand-in for the nucleus that runs the real components' processes.

It takes deployments, fetches recipes and artifacts, installs and runs what they say in child
processes, answers their IPC and gives them credentials. Which of them a deployment restarts follows
the rules of the two nuclei in `recipes`.

Rules kept here:

- Configuration and what is installed survive a power cut.
- A component that dies is started again, three times; then it is BROKEN, and so is a deployment
  that waits for it.
- Artifacts that don't hash to what the cloud said are not used.
- What a deployment does wrong is that deployment's failure. Any other error ends the device's work,
  and is raised by whoever waits for the device or stops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import EdgeFleetError
from edgefleet.testing.cloud.process import read_log
from edgefleet_aws.cloud import recipes
from edgefleet_aws.cloud.announcements import TIMEOUT_S, Announcements, NotAwaitedError
from edgefleet_aws.cloud.component_process import TRIES, ComponentProcess, log_file
from edgefleet_aws.cloud.core_device import Cloud, CoreFacts
from edgefleet_aws.cloud.device_disk import Disk, Memory
from edgefleet_aws.cloud.ipc import IpcError, IpcServer
from edgefleet_aws.cloud.outbox import Outbox
from edgefleet_aws.cloud.recipes import Kind, RefusedError
from edgefleet_aws.cloud.token_exchange import TokenExchange

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_aws.cloud.components import Component
    from edgefleet_aws.cloud.deployments import Deployment

    Cancel = Callable[[], None]

POLL_S = 0.5  # between looks for deployments; a nucleus is told over MQTT
VERSIONS = {Kind.CLASSIC: "2.16.0", Kind.LITE: "2.3.0"}


class Nucleus:
    """One core device; lives on one event loop.

    Args:
        thing: its name.
        kind: which nucleus it has.
        root: folder of its own, kept over power cuts.
        cloud: what it reaches.
        environment: for its components, beside what the nucleus itself gives.
    """

    def __init__(
        self,
        thing: str,
        kind: Kind,
        root: Path,
        cloud: Cloud,
        environment: Mapping[str, str],
    ) -> None:
        self.thing = thing
        self.kind = kind
        self._disk = Disk(root, thing)
        self._cloud = cloud
        self._environment = dict(environment)
        self._running: dict[str, ComponentProcess] = {}
        self._configuration: dict[str, dict[str, Any]] = {}
        self._installed: dict[str, str] = {}
        self._done: list[str] = []
        self._watchers: list[tuple[str, Callable[[list[str]], None]]] = []
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sockets: Path | None = None
        self._ipc: IpcServer | None = None
        self._exchange = TokenExchange(lambda: cloud.keys(thing))
        self._outbox = Outbox(kind, partial(cloud.publish, thing))
        self._announcements = Announcements()
        self.killed: set[str] = set()
        """Components that didn't end in time when they were told to."""

    # -- life

    @property
    def state(self) -> Mapping[str, str]:
        """Lifecycle state of each component."""
        return {name: one.state for name, one in self._running.items()}

    @property
    def on(self) -> bool:
        """Whether it has power."""
        return self._task is not None

    def process_id(self, component: str) -> int | None:
        """Process id of a component; None while it doesn't run."""
        one = self._running.get(component)
        return None if one is None else one.pid

    def environment(self, component: str) -> dict[str, str]:
        """What a component's process is told by the nucleus.

        Raises:
            KeyError: it isn't installed here.
        """
        return {**self._environment_of_components(), "SVCUID": self._running[component].token}

    @property
    def socket(self) -> Path:
        """Of the IPC.

        Raises:
            RefusedError: the device is off.
        """
        if self._ipc is None:
            raise RefusedError("the device is off")
        return self._ipc.path

    @property
    def kept(self) -> int:
        """Messages that wait for the network."""
        return len(self._outbox)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to carry out."""
        return all(one.id in self._done for one in self._cloud.wanted(self.thing))

    def check(self) -> None:
        """Raise what has ended the device's work, if anything has."""
        if self._task is not None:
            _raise_failure(self._task)

    def drop_connections(self) -> None:
        """Hang up on every component, as a nucleus does that starts anew; on the loop's thread."""
        if self._ipc is not None:
            self._ipc.drop()

    def lose_subscriptions(self) -> None:
        """Forget what components subscribed to, and say nothing, as a revision may."""
        if self._ipc is not None:
            self._ipc.lose_subscriptions()

    async def stop_ipc(self) -> None:
        """Take the IPC's socket away, as while the nucleus's own processes are updated."""
        if self._ipc is not None:
            await self._ipc.stop()

    async def start_ipc(self) -> None:
        """Put it back at the same place."""
        if self._ipc is not None:
            await self._ipc.start()

    def fall_silent(self) -> None:
        """Accept what components send from now on, and answer nothing, as one that hangs."""
        if self._ipc is not None:
            self._ipc.silent = True

    def wake(self) -> None:
        """Look for deployments now; on the event loop's thread."""
        self._woken.set()

    async def start(self) -> None:
        """Power on: what is installed runs, then deployments are looked for."""
        self._disk.root.mkdir(parents=True, exist_ok=True)
        memory = self._disk.load()
        if memory is not None:
            self._configuration, self._installed, self._done = memory
        # A socket's path holds 108 bytes (unix(7)), a test's folder easily more.
        self._sockets = Path(tempfile.mkdtemp(prefix="edgefleet-gg-"))
        self._ipc = IpcServer(self._sockets / "ipc.socket", self)
        await self._ipc.start()
        await self._exchange.start()
        for name, version in self._installed.items():
            component = self._cloud.component(name, version)
            if component is not None:
                await self._run(component)
        if self._cloud.online(self.thing):
            self._tell()
        self._task = asyncio.create_task(self._work())

    async def stop(self, *, cut: bool = False) -> None:
        """Power off; with ``cut`` at once, as when the plug is pulled. May be called twice.

        Once it is off, raises what had ended its work, if anything had.
        """
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()  # again: Python 3.11's wait_for loses one that comes with what it awaits
            await asyncio.wait([task], timeout=POLL_S)
        await asyncio.gather(*(self._end(one, cut=cut) for one in self._running.values()))
        self._running.clear()
        self._outbox.clear()
        ipc, self._ipc = self._ipc, None
        if ipc is not None:
            await ipc.stop()
        await self._exchange.stop()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)
            self._sockets = None
        if task is not None:
            _raise_failure(task)

    async def _work(self) -> None:
        while True:
            if self._cloud.online(self.thing):
                await self._outbox.flush()
                for deployment in self._cloud.wanted(self.thing):
                    if deployment.id not in self._done:
                        await self._carry_out(deployment)
            await self._mind()
            if self._cloud.online(self.thing):
                self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            self._woken.clear()

    async def _mind(self) -> None:
        """Start again what has died."""
        for one in tuple(self._running.values()):
            await one.mind()

    # -- deployments

    async def _carry_out(self, deployment: Deployment) -> None:
        self._cloud.report(self.thing, deployment, "IN_PROGRESS")
        before = dict(self._configuration), dict(self._installed)
        try:
            await self._apply(deployment)
        except (RefusedError, EdgeFleetError, OSError) as error:
            # The light nucleus has no failure policy.
            policy = _policies(deployment).get("failureHandlingPolicy", "ROLLBACK")
            if self.kind is Kind.CLASSIC and policy == "ROLLBACK":
                await self._roll_back(*before)
            self._cloud.report(self.thing, deployment, "FAILED", str(error)[:300])
        else:
            self._cloud.report(self.thing, deployment, "SUCCEEDED")
        self._done.append(deployment.id)
        self._disk.save(Memory(self._configuration, self._installed, self._done))

    async def _apply(self, deployment: Deployment) -> None:
        everything = self._cloud.wanted(self.thing)
        roots = recipes.root_components(one.components for one in everything)
        found = recipes.resolved(roots, self._cloud.component)
        configurations = dict(self._configuration)
        for name, component in found.items():
            defaults = recipes.default_configuration(component.recipe)
            there = configurations.get(name, defaults)
            update = (deployment.components.get(name) or {}).get("configurationUpdate") or {}
            configurations[name] = recipes.updated(there, update, defaults)
        artifacts = {one.name: self._fetched(one) for one in found.values()}
        await self._announce(deployment)
        for name in self._installed.keys() - found.keys():
            await self._remove(name)
            configurations.pop(name, None)
        told = self._changes(configurations)
        self._configuration = configurations
        self._installed = {name: one.version for name, one in found.items()}
        for name, path in told:
            self._call_watchers(name, path)
        for name, component in found.items():
            update = (deployment.components.get(name) or {}).get("configurationUpdate")
            await self._renew(component, artifacts[name], has_update=update is not None)
        await self._well(found)
        self._announcements.done(deployment.id)

    async def _announce(self, deployment: Deployment) -> None:
        """Let components put the deployment off; only the classic nucleus asks them."""
        policy = _policies(deployment).get("componentUpdatePolicy") or {}
        if self.kind is Kind.CLASSIC and policy.get("action", "NOTIFY_COMPONENTS") == (
            "NOTIFY_COMPONENTS"
        ):
            timeout_s = policy.get("timeoutInSeconds", TIMEOUT_S)
            await self._announcements.agreed(deployment.id, timeout_s=timeout_s)

    def _changes(self, after: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
        return [
            (name, path)
            for name, values in after.items()
            for path in recipes.changed_paths(self._configuration.get(name, {}), values)
        ]

    def _fetched(self, component: Component) -> recipes.Manifest:
        """The manifest for this platform, its artifacts fetched and checked."""
        manifest = recipes.manifest_for(
            component.recipe, self.kind, architecture=_architecture(), name=component.name
        )
        self._disk.fetch(component, manifest, self._cloud.artifact)
        return manifest

    async def _renew(
        self, component: Component, manifest: recipes.Manifest, *, has_update: bool
    ) -> None:
        """Leave a component alone, or start it anew, by this nucleus's rules."""
        there = self._running.get(component.name)
        lifecycle = self._lifecycle(component, manifest)
        if there is not None:
            if not recipes.restarts(
                self.kind,
                new_version=there.version != component.version,
                new_lifecycle=there.lifecycle != lifecycle,
                has_update=has_update,
            ):
                return
            await self._remove(component.name)
        await self._run(component)

    async def _well(self, found: Mapping[str, Component]) -> None:
        """Wait until each component runs, or has ended well."""
        for name in found:
            one = self._running[name]
            while one.state not in {"RUNNING", "FINISHED"}:
                await self._mind()
                if one.state == "BROKEN":
                    raise RefusedError(f"COMPONENT_BROKEN: {name} ended {TRIES} times")
                await asyncio.sleep(POLL_S / 10)

    async def _roll_back(
        self, configuration: dict[str, dict[str, Any]], installed: dict[str, str]
    ) -> None:
        for name in self._running.keys() - installed.keys():
            await self._remove(name)
        told = self._changes(configuration)
        self._configuration, self._installed = configuration, installed
        for name, path in told:
            self._call_watchers(name, path)
        for name, version in installed.items():
            component = self._cloud.component(name, version)
            one = self._running.get(name)
            if component is not None and (one is None or one.version != version):
                await self._remove(name)
                await self._run(component)

    # -- processes

    async def _run(self, component: Component) -> None:
        manifest = recipes.manifest_for(
            component.recipe, self.kind, architecture=_architecture(), name=component.name
        )
        one = ComponentProcess(
            component.name,
            component.version,
            self._lifecycle(component, manifest),
            root=self._disk.root,
            environment=self._environment_of_components(),
        )
        self._running[component.name] = one
        await one.install()
        await one.start()

    def _environment_of_components(self) -> dict[str, str]:
        return {
            **self._environment,
            "AWS_IOT_THING_NAME": self.thing,
            "AWS_REGION": self._cloud.region,
            "AWS_DEFAULT_REGION": self._cloud.region,
            "GGC_VERSION": VERSIONS[self.kind],
            "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT": str(self.socket),
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": self._exchange.address,
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": self._exchange.token,
        }

    async def _remove(self, name: str) -> None:
        one = self._running.pop(name, None)
        if one is not None:
            await self._end(one)

    async def _end(self, one: ComponentProcess, *, cut: bool = False) -> None:
        if not await one.end(cut=cut):
            self.killed.add(one.name)

    def log(self, component: str, last: int = 20) -> list[str]:
        """The newest lines that a component printed."""
        return read_log(log_file(self._disk.root, component), last)

    def _lifecycle(self, component: Component, manifest: recipes.Manifest) -> dict[str, Any]:
        configuration = self._configuration.get(component.name, {})
        return self._disk.filled(component, manifest.lifecycle, configuration, self.kind)

    # -- what is told

    def _tell(self) -> None:
        components = {name: (one.version, one.state) for name, one in self._running.items()}
        facts = CoreFacts(
            version=VERSIONS[self.kind],
            runtime="aws_nucleus_lite" if self.kind is Kind.LITE else "aws_nucleus_classic",
            architecture=_architecture(),
            healthy=not {"BROKEN", "ERRORED"} & {one.state for one in self._running.values()},
            components=components,
        )
        self._cloud.is_up(self.thing, facts)

    def _call_watchers(self, component: str, path: list[str]) -> None:
        for name, changed in tuple(self._watchers):
            if name == component:
                changed(path)

    # -- what components ask over IPC

    def component_of(self, token: str) -> str | None:
        return next((name for name, one in self._running.items() if one.token == token), None)

    def configuration(self, component: str) -> Mapping[str, Any] | None:
        return self._configuration.get(component)

    def watch(self, component: str, changed: Callable[[list[str]], None]) -> Cancel:
        entry = (component, changed)
        self._watchers.append(entry)

        def cancel() -> None:
            with contextlib.suppress(ValueError):
                self._watchers.remove(entry)

        return cancel

    def announce(self, component: str, tell: Callable[[Mapping[str, Any]], None]) -> Cancel | None:
        if self.kind is Kind.LITE:
            return None
        return self._announcements.subscribe(component, tell)

    def put_off(self, component: str, deployment: str, wait_s: float) -> None:
        if not self._announcements.listens(component):
            raise IpcError(
                "InvalidArgumentsError", "Component is not subscribed to component update events"
            )
        try:
            self._announcements.answer(component, deployment, wait_s)
        except NotAwaitedError:
            raise IpcError(
                "ServiceError", "Time limit to respond to PreComponentUpdateEvent exceeded"
            ) from None

    def may(self, component: str, operation: str, topic: str) -> bool:
        configuration = self._configuration.get(component, {})
        return recipes.may_publish(configuration, operation, topic, thing=self.thing)

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._outbox.put(topic, payload)

    def subscribe(self, topic_filter: str, received: Callable[[str, bytes], None]) -> Cancel:
        loop = asyncio.get_running_loop()

        def arrived(topic: str, payload: bytes) -> None:
            loop.call_soon_threadsafe(received, topic, payload)

        return self._cloud.subscribe(self.thing, topic_filter, arrived)


def _raise_failure(task: asyncio.Task[None]) -> None:
    """Raise what a task ended with, if that is an error."""
    if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
        raise failure


def _policies(deployment: Deployment) -> Mapping[str, Any]:
    return deployment.request.get("deploymentPolicies") or {}


def _architecture() -> str:
    machine = platform.machine()
    return {"x86_64": "amd64", "arm64": "aarch64"}.get(machine, machine)
