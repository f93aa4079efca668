"""What everything that answers requests shares."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from starlette.requests import ClientDisconnect

from edgefleet.errors import EdgeFleetError
from edgefleet_gateway.server.audit import Audit
from edgefleet_gateway.server.figures import Figures
from edgefleet_gateway.server.handed import Handed
from edgefleet_gateway.server.problems import RefusedError
from edgefleet_gateway.server.rates import Buckets, Rate
from edgefleet_gateway.server.who import Caller, identify
from edgefleet_gateway.server.wire import connection_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from ipaddress import IPv4Network, IPv6Network
    from pathlib import Path

    from starlette.requests import Request

    from edgefleet.interfaces.blobs import BlobStore
    from edgefleet.interfaces.receiving import CanReceive
    from edgefleet.interfaces.state import StateStore
    from edgefleet.protocol.event import Event
    from edgefleet_gateway.joining import Joining
    from edgefleet_gateway.mirror import Mirror
    from edgefleet_gateway.server.presence import Presence
    from edgefleet_gateway.server.scratch import Scratch
    from edgefleet_gateway.settings import GatewaySettings
    from edgefleet_gateway.sinks.running import SinkFigures

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

THREADS = 32  # reads of blobs and writes of telemetry at once
CALLER = "edgefleet.caller"
"""Key of the device in an ASGI scope."""


class Forwards(Protocol):
    """Sends hot events on; durable when it returns. Called in a thread."""

    def take(self, device: str, events: Sequence[Event]) -> None:
        """Take events of a device for every sink; the same may come again."""

    def take_file(self, device: str, path: str, file: Path) -> None:
        """Take the events of a file of a device for the sinks that ask for them."""

    def figures(self) -> Iterable[SinkFigures]:
        """What is to be known of each sink."""


class Rates(NamedTuple):
    """How often somebody may ask, and how much may wait.

    Attributes:
        device: requests of one device.
        stranger: requests from one address without a certificate.
        streams: blobs that are sent at once.
        uploads: parts of files that are taken at once.
    """

    device: Rate = Rate(per_s=20.0, burst=200.0)
    stranger: Rate = Rate(per_s=5.0, burst=100.0)
    streams: int = 256
    uploads: int = 128


@dataclass(frozen=True, kw_only=True)
class Backends:
    """What a gateway stands before.

    Attributes:
        state: pointers, devices, requests.
        blobs: the registry's.
        receiver: takes what devices recorded; None refuses it.
        fleet: UUID of the fleet.
        joining: signs certificates; None refuses to.
        forwards: sends hot events on; None where nobody wants them.
    """

    state: StateStore
    blobs: BlobStore
    receiver: CanReceive | None
    fleet: str
    joining: Joining | None = None
    forwards: Forwards | None = None


@dataclass(kw_only=True)
class Gateway:
    """One process of the service; everything here belongs to its event loop."""

    settings: GatewaySettings
    backends: Backends
    mirror: Mirror
    presence: Presence
    scratch: Scratch
    rates: Rates = field(default_factory=Rates)
    audit: Audit = field(default_factory=Audit)
    observers: tuple[IPv4Network | IPv6Network, ...] = ()
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)

    def __post_init__(self) -> None:
        """Make what belongs to it alone."""
        self.figures = Figures(
            {
                "connections": ("Connections that are open", lambda: self.connections()),  # noqa: PLW0108 - set later
                "waiting_polls": ("Polls that wait for news", lambda: self.waiting),
                "state_away": (
                    "1 while the state store can't be reached",
                    lambda: self.mirror.away_since is not None,
                ),
                "scratch_bytes": ("Bytes of files half taken", lambda: self.scratch.held),
            }
        )
        if self.backends.forwards is not None:
            self.figures.watch_sinks(self.backends.forwards.figures)
        self.handed = Handed(self.clock)
        self.devices = Buckets(self.rates.device)
        self.strangers = Buckets(self.rates.stranger)
        self.streams = asyncio.Semaphore(self.rates.streams)
        self.uploads = asyncio.Semaphore(self.rates.uploads)
        self._settling: dict[str, asyncio.Task[None]] = {}
        self.sizes: dict[str, int] = {}  # of blobs, by digest
        self.waiting = 0  # polls that wait for news
        self.described = b""  # the OpenAPI document of what is served
        self.busy: set[str] = set()  # files that a part comes for
        self.connections: Callable[[], int] = lambda: 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway-io")

    def close(self) -> None:
        """Start nothing new."""
        self.mirror.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def thread(self, work: Callable[[], T]) -> T:
        """Call what reads or writes, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def identify(self, request: Request, *, renewing: bool = False) -> Caller:
        """The device that asks; see `who.identify` for the errors."""
        caller = await identify(
            connection_of(request).certificate,
            self.mirror,
            fleet=self.backends.fleet,
            now=self.now(),
            grace=timedelta(days=self.settings.renew_days if renewing else 0),
        )
        request.scope[CALLER] = caller
        self.presence.seen(caller.device, self.now())
        if caller.record.certificates[0].serial != caller.peer.serial:
            self._settle(caller)
        return caller

    def _settle(self, caller: Caller) -> None:
        """Have what the device held before its newest certificate count no longer."""
        joining, device = self.backends.joining, caller.device
        if joining is None or device in self._settling:
            return

        async def settle() -> None:
            try:
                await self.mirror.call(lambda: joining.settle(device, caller.peer.serial))
                self.mirror.forget(f"device/{device}")
            except EdgeFleetError as error:
                _LOG.warning("older certificates of %s still count: %s", device, error.message)
            finally:
                del self._settling[device]

        self._settling[device] = asyncio.get_running_loop().create_task(settle())

    def receiver(self) -> CanReceive:
        """What takes what devices recorded.

        Raises:
            RefusedError: nothing does.
        """
        if self.backends.receiver is None:
            raise RefusedError(501, "this fleet's telemetry takes nothing from gateways")
        return self.backends.receiver

    def caller(self, request: Request) -> Caller:
        """The device that asks, as it was identified at the door."""
        caller: Caller = request.scope[CALLER]
        return caller

    async def news(
        self, request: Request, topics: Sequence[str], since: int, timeout_s: float
    ) -> bool:
        """Wait for news as long as the client does.

        Raises:
            ClientDisconnect: it went away.
        """
        connection = connection_of(request)
        connection.waiter = asyncio.get_running_loop().create_future()
        self.waiting += 1
        try:
            came = await self.mirror.news(topics, since, timeout_s, waiter=connection.waiter)
        finally:
            connection.waiter = None
            self.waiting -= 1
        if connection.gone:
            raise ClientDisconnect
        return came
