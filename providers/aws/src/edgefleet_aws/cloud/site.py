"""Where core devices of the mock stand: they run on one event loop, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from edgefleet.errors import NotFoundError, WaitTimeoutError
from edgefleet_aws.cloud.nucleus import Nucleus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    from edgefleet_aws.cloud.core_device import Cloud
    from edgefleet_aws.cloud.recipes import Kind

T = TypeVar("T")

POLL_S = 0.02
SETTLE_S = 120.0


class Site:
    """Core devices that can be powered on and off, from any thread.

    Args:
        root: a folder; each device keeps its disk below it.
        cloud: what they reach.
        environment: of their components.
    """

    def __init__(
        self, root: Path, cloud: Cloud, environment: Callable[[], Mapping[str, str]]
    ) -> None:
        self._root = root
        self._cloud = cloud
        self._environment = environment
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._devices: dict[str, Nucleus] = {}

    def add(self, thing: str, kind: Kind, variables: Mapping[str, str], *, on: bool = True) -> None:
        """Put a device there and power it on; no error when it is there.

        Args:
            thing: its name.
            kind: of its nucleus.
            variables: of its own environment.
            on: False leaves it without power.
        """
        if thing not in self._devices:
            environment = {**self._environment(), **variables}
            nucleus = Nucleus(thing, kind, self._root / thing, self._cloud, environment)
            self._devices[thing] = nucleus
            if on:
                self._call(nucleus.start())

    def power_on(self, thing: str) -> None:
        """Give a device its power back; no error when it has it."""
        nucleus = self.nucleus(thing)
        if not nucleus.on:
            self._call(nucleus.start())

    def power_off(self, thing: str) -> None:
        """Pull a device's plug; no error when it was pulled before."""
        self._call(self.nucleus(thing).stop(cut=True))

    def shut_down(self, thing: str) -> None:
        """Stop a device in order; no error when it is off."""
        self._call(self.nucleus(thing).stop())

    def drop_connections(self, thing: str) -> None:
        """Have a device's nucleus hang up on its components."""

        async def drop() -> None:
            self.nucleus(thing).drop_connections()

        self._call(drop())

    def stop_ipc(self, thing: str) -> None:
        """Take the socket of a device's nucleus away; its components go on."""
        self._call(self.nucleus(thing).stop_ipc())

    def start_ipc(self, thing: str) -> None:
        """Put it back."""
        self._call(self.nucleus(thing).start_ipc())

    def nucleus(self, thing: str) -> Nucleus:
        """A device.

        Raises:
            NotFoundError: there is none of that name.
        """
        found = self._devices.get(thing)
        if found is None:
            raise NotFoundError(f"no device {thing!r} in the mock")
        return found

    def settle(self, thing: str, timeout_s: float = SETTLE_S) -> None:
        """Wait until a device has carried out all that the cloud wants of it.

        Raises:
            WaitTimeoutError: it hasn't by then.
            Exception: what has ended the device's work.
        """
        nucleus = self.nucleus(thing)

        async def settled() -> None:
            async with asyncio.timeout(timeout_s):
                nucleus.check()
                while not nucleus.idle:
                    nucleus.wake()
                    await asyncio.sleep(POLL_S)
                    nucleus.check()

        try:
            self._call(settled())
        except TimeoutError as error:
            raise WaitTimeoutError(f"{thing} is not done after {timeout_s:.0f} s") from error

    def wake(self) -> None:
        """Let every device look for deployments now; returns at once."""
        if self._loop is not None:
            for nucleus in tuple(self._devices.values()):
                self._loop.call_soon_threadsafe(nucleus.wake)

    def stop(self) -> None:
        """Shut every device down in order and forget them; may be called twice.

        Once all are off, raises what had ended the work of one of them, if anything had.
        """
        devices, self._devices = self._devices, {}
        loop, self._loop = self._loop, None
        thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return

        async def shut_down() -> list[BaseException | None]:
            ends = (nucleus.stop() for nucleus in devices.values())
            return await asyncio.gather(*ends, return_exceptions=True)

        ended = asyncio.run_coroutine_threadsafe(shut_down(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        for failure in filter(None, ended):
            raise failure

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="mock-devices", daemon=True
            )
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
