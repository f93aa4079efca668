"""A device's edgeAgent: carries out the merged deployments, and reports what it made of them.

Rules kept here, each in ``mock_rules.md``:

- What it was told last is on its disk: without a network a device starts with that.
- A module that differs in nothing from before is left alone. Desired properties of modules are
  edgeHub's affair, and no concern of this.
- A configuration that is refused changes nothing; its status says why.
- An image is pulled when a module is made, over the network; with ``never`` it must be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from edgefleet.protocol.files import write_whole
from edgefleet_azure.cloud.edge_manifest import (
    FAILED,
    OK,
    ManifestError,
    ModuleSpec,
    modules_of,
)
from edgefleet_azure.cloud.edge_module import COOL_OFF_S, EdgeModule
from edgefleet_azure.cloud.hub_twins import difference
from edgefleet_azure.cloud.hub_values import HubError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet_azure.cloud.hub_state import HubDevices
    from edgefleet_azure.cloud.hub_values import Cancel

_log = logging.getLogger(__name__)

EDGE_AGENT = "$edgeAgent"
VERSION = "1.6.0"
POLL_S = 0.2  # between looks at the modules


class EdgeAgent:
    """One device's edgeAgent; lives on one event loop.

    Args:
        device: its name.
        hub: IoT Hub, reached while `online`.
        images: the program of each image that can be pulled.
        environment: gives what a module's process is told.
        disk: the device's.
        volatile: a folder that the power takes along.
        cool_off_s: the first pause before a module is restarted.
    """

    def __init__(
        self,
        device: str,
        hub: HubDevices,
        *,
        images: Mapping[str, Sequence[str]],
        environment: Callable[[str], Mapping[str, str]],
        disk: Path,
        volatile: Path,
        cool_off_s: float = COOL_OFF_S,
    ) -> None:
        self.device = device
        self.online = False
        self.modules: dict[str, EdgeModule] = {}
        self._hub, self._images = hub, images
        self._environment = environment
        self._disk, self._volatile = disk, volatile
        self._cool_off_s = cool_off_s
        self._backup = disk / "edgeagent.json"
        self._desired: dict[str, Any] = {}
        self._pulled: set[str] = set()
        self._status: dict[str, Any] = {}
        self._handled: int | None = None
        self._sent: dict[str, Any] | None = None
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._follows: Cancel | None = None

    # -- life

    async def start(self) -> None:
        """Start with what is on the disk, then look for what is wanted."""
        with contextlib.suppress(FileNotFoundError):
            kept = json.loads(self._backup.read_bytes())
            self._desired, self._pulled = kept["desired"], set(kept["pulled"])
        self._task = asyncio.create_task(self._work())

    async def stop(self, *, cut: bool = False) -> None:
        """End with all modules; with ``cut`` at once. May be called twice."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=POLL_S)
        self.set_online(False)
        await asyncio.gather(*(one.end(cut=cut) for one in self.modules.values()))

    def set_online(self, online: bool) -> None:  # noqa: FBT001 - what it is set to
        """Reach IoT Hub from now on, or no more."""
        self.online = online
        if self._follows is not None:
            self._follows()
            self._follows = None
        self._sent = None
        if online:
            loop = asyncio.get_running_loop()
            wake = partial(loop.call_soon_threadsafe, self._woken.set)

            def told(_: Mapping[str, Any]) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    wake()

            self._follows = self._hub.on_desired(self.device, EDGE_AGENT, told)
            self._woken.set()

    def wake(self) -> None:
        """Look now; on the event loop's thread."""
        self._woken.set()

    @property
    def settled(self) -> bool:
        """Whether the newest configuration is carried out or refused, and that is reported."""
        if not self.online:
            return self._handled is not None
        version = self._hub.twin(self.device, EDGE_AGENT)["desired"]["$version"]
        return self._handled == version and self._sent == self._report()

    async def _work(self) -> None:
        while True:
            try:
                await self._turn()
            except HubError as error:
                _log.info("edgeAgent of %s: %s", self.device, error.message)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            self._woken.clear()

    async def _turn(self) -> None:
        if self.online:
            self._desired = self._hub.twin(self.device, EDGE_AGENT)["desired"]
        version = self._desired.get("$version")
        if version != self._handled and version is not None:
            await self._carry_out(version)
        for one in self.modules.values():
            await one.mind()
        if self.online:
            self._tell()

    # -- configurations

    async def _carry_out(self, version: int) -> None:
        try:
            wanted = modules_of(self._desired)
            await self._apply(wanted)
        except ManifestError as error:
            self._status = {"code": error.code, "description": str(error)}
        except OSError as error:
            self._status = {"code": FAILED, "description": str(error)}
        else:
            self._status = {"code": OK, "description": ""}
        self._handled = version
        kept = {"desired": self._desired, "pulled": sorted(self._pulled)}
        write_whole(self._backup, json.dumps(kept).encode())

    async def _apply(self, wanted: Mapping[str, ModuleSpec]) -> None:
        for spec in wanted.values():
            self._pull(spec)
        for name in [name for name, one in self.modules.items() if wanted.get(name) != one.spec]:
            await self.modules.pop(name).end()
        for name, spec in wanted.items():
            if name not in self.modules:
                one = self.modules[name] = self._made(name, spec)
                await one.start()

    def _pull(self, spec: ModuleSpec) -> None:
        if spec.image in self._pulled:
            return
        if spec.pull == "never" or not self.online or spec.image not in self._images:
            raise ManifestError(FAILED, f"image {spec.image} is not here and can't be pulled")
        self._pulled.add(spec.image)

    def _made(self, name: str, spec: ModuleSpec) -> EdgeModule:
        return EdgeModule(
            name,
            spec,
            program=self._images[spec.image],
            environment=self._environment(name),
            disk=self._disk,
            volatile=self._volatile,
            log=self._disk / "logs" / f"{name}.log",
            cool_off_s=self._cool_off_s,
        )

    # -- what it reports

    def _report(self) -> dict[str, Any]:
        system = {"runtimeStatus": "running", "restartCount": 0, "exitCode": 0}
        return {
            "schemaVersion": "1.1",
            "version": {"version": VERSION},
            "lastDesiredVersion": self._handled,
            "lastDesiredStatus": self._status,
            "runtime": {"type": "docker", "platform": {"os": "linux"}},
            "systemModules": {"edgeAgent": system, "edgeHub": system},
            "modules": {name: one.reported() for name, one in self.modules.items()},
        }

    def _tell(self) -> None:
        report = self._report()
        if report == self._sent or self._handled is None:
            return
        before = self._sent
        if before is None:
            before = self._hub.twin(self.device, EDGE_AGENT)["reported"]
            before.pop("$version", None)
        patch = difference(before, report)
        if patch:
            self._hub.report(self.device, EDGE_AGENT, patch)
        self._sent = report
