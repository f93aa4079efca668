"""IoT Edge devices of the mock: each with its edgeHub, edgeAgent, workload API, network and disk.

They live on one event loop in a thread of its own, and each listens on a loopback address of its
own, because azure-iot-device connects to port 8883 and no other. Linux gives a process all of
127.0.0.0/8; elsewhere such addresses must be configured first.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgefleet.errors import NotFoundError, UnavailableError, WaitTimeoutError
from edgefleet.testing.cloud.network import Network, free_address
from edgefleet_azure.cloud.edge_agent import EdgeAgent
from edgefleet_azure.cloud.edge_hub import PORT, EdgeHub
from edgefleet_azure.cloud.edge_login import API_VERSION, Workload
from edgefleet_azure.cloud.edge_module import COOL_OFF_S
from edgefleet_azure.cloud.edge_store import EdgeStore

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from edgefleet.testing.cloud.authority import Authority
    from edgefleet_azure.cloud.hub_state import HubDevices

T = TypeVar("T")

POLL_S = 0.02
SETTLE_S = 120.0
_GENERATION = "1"


class EdgeDevice:
    """One device; all but its attributes is called on its event loop.

    Args:
        name: at IoT Hub.
        hub: what it reaches with its credentials.
        host: IoT Hub's name.
        disk: a folder of its own, kept over power cuts.
        authority: that its certificates are from.
        images: the program of each image.
        variables: of its modules' environments.
        cool_off_s: the first pause before a module is restarted.
        clock: seconds since the epoch, for messages' times to live.
    """

    def __init__(
        self,
        name: str,
        hub: HubDevices,
        *,
        host: str,
        disk: Path,
        authority: Authority,
        images: Mapping[str, Sequence[str]],
        variables: Mapping[str, str],
        cool_off_s: float,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.address = ""
        self._hub_side, self._host, self._disk = hub, host, disk
        self._authority = authority
        self._images, self._variables = images, dict(variables)
        self._cool_off_s, self._clock = cool_off_s, clock
        self._connected = True
        self._volatile: Path | None = None
        self._workload: Workload | None = None
        self.network = Network()
        self.hub: EdgeHub | None = None
        """Its edgeHub; None while it has no power."""
        self.agent: EdgeAgent | None = None
        """Its edgeAgent; None while it has no power."""

    async def on(self) -> None:
        """Power on; no error when it is on.

        Raises:
            HubError: IoT Hub doesn't know the device; then it stays off.
        """
        if self.agent is not None:
            return
        try:
            await self._start()
        except BaseException:
            await self.off(cut=True)
            raise

    async def _start(self) -> None:
        self._disk.mkdir(parents=True, exist_ok=True)
        # A socket's path holds 108 bytes (unix(7)), a test's folder easily more.
        self._volatile = Path(tempfile.mkdtemp(prefix="edgefleet-edge-", dir=_short()))
        self.address = self.address or free_address(PORT)
        store = EdgeStore(self._disk / "edgehub.json")
        bundle = self._authority.certificate.read_text()
        self._workload = Workload(self._volatile / "workload.sock", bundle, self._key_of(store))
        self.hub = EdgeHub(
            self.name,
            self._hub_side,
            host=self._host,
            store=store,
            address=self.address,
            tls=self._authority.context(self.address),
            clock=self._clock,
        )
        self.agent = EdgeAgent(
            self.name,
            self._hub_side,
            images=self._images,
            environment=self.environment,
            disk=self._disk,
            volatile=self._volatile,
            cool_off_s=self._cool_off_s,
        )
        self.network.up = self._connected
        await self.network.start()
        await self._workload.start()
        await self.hub.start()
        await self.hub.set_online(self._connected)
        self.agent.set_online(self._connected)
        await self.agent.start()

    async def off(self, *, cut: bool) -> None:
        """Power off, in order or with ``cut`` at once; no error when it is off."""
        agent, self.agent = self.agent, None
        hub, self.hub = self.hub, None
        if agent is not None:
            await agent.stop(cut=cut)
        if hub is not None:
            await hub.stop()
        if self._workload is not None:
            await self._workload.stop()
        await self.network.stop()
        if self._volatile is not None:
            shutil.rmtree(self._volatile, ignore_errors=True)
            self._volatile = None

    async def connect(self, connected: bool) -> None:  # noqa: FBT001 - what it is set to
        """Give it a network, or take it away."""
        self._connected = self.network.up = connected
        if not connected:
            self.network.cut()
        if self.hub is not None and self.agent is not None:
            await self.hub.set_online(connected)
            self.agent.set_online(connected)

    def environment(self, module: str) -> dict[str, str]:
        """What edgeAgent tells a module: ``CombinedEdgeletConfigProvider.cs`` in Azure/iotedge."""
        if self._workload is None:
            raise UnavailableError(f"{self.name} has no power")
        return {
            **self._variables,
            "https_proxy": self.network.address,
            "no_proxy": "",
            "NO_PROXY": "",
            "IOTEDGE_DEVICEID": self.name,
            "IOTEDGE_MODULEID": module,
            "IOTEDGE_MODULEGENERATIONID": _GENERATION,
            "IOTEDGE_IOTHUBHOSTNAME": self._host,
            "IOTEDGE_GATEWAYHOSTNAME": self.address,
            "IOTEDGE_WORKLOADURI": f"unix://{self._workload.path}",
            "IOTEDGE_APIVERSION": API_VERSION,
            "IOTEDGE_AUTHSCHEME": "sasToken",
            "RuntimeLogLevel": "Information",
        }

    def _key_of(self, store: EdgeStore) -> Callable[[str, str], str | None]:
        """The key of a module's identity: asked of IoT Hub once, then on the disk."""

        def key(module: str, generation: str) -> str | None:
            if generation != _GENERATION:
                return None
            if module not in store.keys and self._connected:
                store.keys[module] = list(self._hub_side.keys(self.name, module))
                store.save()
            return next(iter(store.keys.get(module, ())), None)

        return key


class EdgeSite:
    """Devices that can be powered on and off, from any thread.

    Args:
        root: a folder; each device keeps its disk below it.
        images: the program of each image that devices can pull.
        environment: of their modules.
        authority: that edge certificates are from.
        cool_off_s: the first pause before a module is restarted; the real one is ten seconds.
        clock: seconds since the epoch, for messages' times to live.
    """

    def __init__(
        self,
        root: Path,
        *,
        images: Mapping[str, Sequence[str]],
        environment: Callable[[], Mapping[str, str]],
        authority: Authority,
        cool_off_s: float = COOL_OFF_S,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._root, self._images, self._environment = root, images, environment
        self._authority = authority
        self._cool_off_s = cool_off_s
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._devices: dict[str, EdgeDevice] = {}

    def add(
        self,
        name: str,
        hub: HubDevices,
        *,
        host: str,
        variables: Mapping[str, str] | None = None,
        on: bool = True,
    ) -> None:
        """Put a device there and power it on; no error when it is there.

        Args:
            name: at IoT Hub, which must know it.
            hub: what it reaches with its credentials.
            host: IoT Hub's name.
            variables: of its own environment.
            on: False leaves it without power.
        """
        if name not in self._devices:
            self._devices[name] = EdgeDevice(
                name,
                hub,
                host=host,
                disk=self._root / name,
                authority=self._authority,
                images=self._images,
                variables={**self._environment(), **(variables or {})},
                cool_off_s=self._cool_off_s,
                clock=self._clock or time.time,
            )
        if on:
            self.power_on(name)

    def power_on(self, name: str) -> None:
        """Give a device its power back; no error when it has it."""
        self.call(self.device(name).on())

    def power_off(self, name: str) -> None:
        """Pull a device's plug; no error when it was pulled before."""
        self.call(self.device(name).off(cut=True))

    def shut_down(self, name: str) -> None:
        """Stop a device in order; no error when it is off."""
        self.call(self.device(name).off(cut=False))

    def cut_network(self, name: str) -> None:
        """Take a device's network away; its modules go on."""
        self.call(self.device(name).connect(False))

    def restore_network(self, name: str) -> None:
        """Give it back."""
        self.call(self.device(name).connect(True))

    def drop_connections(self, name: str, *, forget: bool = False) -> None:
        """Have a device's edgeHub hang up on its modules.

        Args:
            name: of the device.
            forget: and know no subscriptions any more, as one whose container was made anew.
        """

        async def drop() -> None:
            hub = self.device(name).hub
            if hub is not None:
                if forget:
                    hub.forget_sessions()
                hub.drop_connections()

        self.call(drop())

    def device(self, name: str) -> EdgeDevice:
        """A device.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self._devices.get(name)
        if found is None:
            raise NotFoundError(f"no device {name!r} in the mock")
        return found

    def pid(self, name: str, module: str) -> int | None:
        """Process id of a module; None while it doesn't run."""
        agent = self.device(name).agent
        one = None if agent is None else agent.modules.get(module)
        return None if one is None else one.pid

    def log(self, name: str, module: str, last: int = 20) -> list[str]:
        """The newest lines that a module printed."""
        agent = self.device(name).agent
        one = None if agent is None else agent.modules.get(module)
        return [] if one is None else one.log(last)

    def settle(self, name: str, timeout_s: float = SETTLE_S) -> None:
        """Wait until a device has carried out what the hub wants of it, and said so.

        Raises:
            WaitTimeoutError: it hasn't by then.
        """

        async def settled() -> None:
            async with asyncio.timeout(timeout_s):
                while (agent := self.device(name).agent) is None or not agent.settled:
                    if agent is not None:
                        agent.wake()
                    await asyncio.sleep(POLL_S)

        try:
            self.call(settled())
        except TimeoutError as error:
            raise WaitTimeoutError(f"{name} is not done after {timeout_s:.0f} s") from error

    def stop(self) -> None:
        """Shut every device down in order and forget them; may be called twice."""
        devices, self._devices = self._devices, {}
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return

        async def shut_down() -> None:
            await asyncio.gather(*(device.off(cut=False) for device in devices.values()))

        self.call(shut_down())
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the devices' event loop, and wait for it."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="mock-edge-devices", daemon=True
            )
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _short() -> str | None:
    """A folder with a short name for sockets, whatever TMPDIR says."""
    return "/tmp" if len(tempfile.gettempdir()) > 40 else None  # noqa: S108 - see above
