"""Puts a gateway together and runs it: in this thread until a signal, or in one of its own."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import TYPE_CHECKING

import uvloop
from uvicorn import Config

from edgefleet.errors import ConfigurationError, EdgeFleetError, UnavailableError
from edgefleet_gateway.mirror import Mirror
from edgefleet_gateway.server.audit import Audit
from edgefleet_gateway.server.door import application
from edgefleet_gateway.server.gateway import Backends, Gateway, Rates
from edgefleet_gateway.server.presence import Presence
from edgefleet_gateway.server.scratch import MAX_BYTES, Scratch, sole
from edgefleet_gateway.server.tls import Material, server_context
from edgefleet_gateway.server.wire import Limits, Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from edgefleet_gateway.settings import GatewaySettings

TEND_S = 600.0  # seconds between two looks at certificates, and two sweeps of the scratch folder
BACKLOG = 2048  # connections that wait to be taken
GRACE_S = 10  # seconds that answers under way get when the gateway ends
LOOPBACK = ("127.0.0.0/8", "::1/128")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one process serves.

    Attributes:
        host: address to listen at.
        port: 0 for any that is free.
        scratch: folder of half-sent files; whoever serves holds it by `scratch.sole`.
        scratch_bytes: of all half-sent files together.
        audit_log: file that grows; None writes none.
        observers: networks from which figures and health may be read.
        limits: of connections.
        rates: of requests.
    """

    scratch: Path
    host: str = "127.0.0.1"
    port: int = 0
    scratch_bytes: int = MAX_BYTES
    audit_log: Path | None = None
    observers: tuple[str, ...] = LOOPBACK
    limits: Limits = field(default_factory=Limits)
    rates: Rates = field(default_factory=Rates)


class Serving:
    """A gateway that listens once it is made, and answers once it runs.

    Args:
        backends: what it stands before.
        settings: of the profile.
        material: gives what it serves with; called again now and then, in a thread.
        options: how it serves.

    Raises:
        ConfigurationError: it can't listen there, serve with that, or write the audit log.
    """

    def __init__(
        self,
        backends: Backends,
        settings: GatewaySettings,
        material: Callable[[], Material],
        options: Options,
    ) -> None:
        self._backends = backends
        self._settings = settings
        self._material = material
        self._options = options
        self._shown = material()
        self._tls = server_context(self._shown)
        with ExitStack() as opened:
            self._audit = Audit(options.audit_log)
            opened.callback(self._audit.close)
            self._scratch = Scratch(options.scratch, max_bytes=options.scratch_bytes)
            self._socket = _listen(options.host, options.port)
            opened.pop_all()
        self._wire: Wire | None = None
        self.gateway: Gateway | None = None
        self.port: int = self._socket.getsockname()[1]
        self.ready = threading.Event()

    @property
    def address(self) -> str:
        """Where it listens: ``https://HOST:PORT``."""
        host = self._options.host
        return f"https://{f'[{host}]' if ':' in host else host}:{self.port}"

    def run(self) -> None:
        """Serve until `stop`, or in the main thread until SIGINT or SIGTERM, which then goes on."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())

    def stop(self) -> None:
        """Begin to end, from any thread."""
        if self._wire is not None:
            self._wire.should_exit = True

    async def _run(self) -> None:
        prefix = self._settings.prefix
        mirror = Mirror(self._backends.state, prefix=prefix)
        gateway = Gateway(
            settings=self._settings,
            backends=self._backends,
            mirror=mirror,
            presence=Presence(self._scratch.gateway_name(), self._backends.state, mirror, now=_now),
            scratch=self._scratch,
            rates=self._options.rates,
            audit=self._audit,
            observers=tuple(ip_network(network) for network in self._options.observers),
        )
        wire = Wire(
            _config(gateway, self._options),
            limits=self._options.limits,
            listening=self._socket,
            tls=self._tls,
            ending=mirror.end_waiting,
            started=self.ready.set,
        )
        gateway.connections = lambda: len(wire.server_state.connections)
        self._wire, self.gateway = wire, gateway
        await mirror.look()
        kept = [
            asyncio.create_task(_kept_up(mirror.run(self._settings.look_s))),
            asyncio.create_task(_kept_up(gateway.presence.run())),
            asyncio.create_task(_kept_up(self._tend(gateway, wire))),
        ]
        try:
            await wire.serve()
        finally:
            for task in kept:
                task.cancel()
            await asyncio.gather(*kept, return_exceptions=True)
            with suppress(EdgeFleetError):
                await gateway.presence.flush()
            gateway.close()
            gateway.audit.close()
            self._socket.close()

    async def _tend(self, gateway: Gateway, wire: Wire) -> None:
        """Serve with what the authority gives now, and sweep the scratch folder."""
        turn = gateway.mirror.turn()
        while not gateway.mirror.closed:
            await gateway.mirror.news(("authority",), turn, TEND_S)
            turn = gateway.mirror.turn()
            try:
                shown = await gateway.mirror.call(self._material)
                if shown != self._shown:
                    await wire.serve_with(server_context(shown))
                    self._shown = shown
            except (EdgeFleetError, OSError) as error:  # such as too many open files, for now
                _LOG.warning("serving with what there was: %s", error)
            try:
                swept = await gateway.thread(gateway.scratch.sweep)
            except OSError as error:
                _LOG.warning("half-sent files can't be swept: %s", error)
                continue
            for device, count in swept:
                gateway.scratch.grown(device, -count)
            _LOG.debug("swept %d half-sent files", len(swept))


@contextmanager
def serve_in_thread(
    backends: Backends,
    settings: GatewaySettings,
    material: Callable[[], Material],
    options: Options,
) -> Iterator[Serving]:
    """A gateway that serves in a thread of its own as long as the block lasts."""
    with sole(options.scratch):
        serving = Serving(backends, settings, material, options)
        thread = threading.Thread(target=serving.run, name="gateway", daemon=True)
        thread.start()
        try:
            while not serving.ready.wait(0.05):
                if not thread.is_alive():
                    raise UnavailableError("the gateway ended before it served")
            yield serving
        finally:
            serving.stop()
            thread.join()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(place)
            listening.listen(BACKLOG)  # whoever comes before it answers, waits
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"a gateway can't listen at {host}:{port}: {error.strerror or error}",
            cure="end what listens there, or choose another address or port",
        ) from error
    listening.setblocking(False)
    return listening


def _config(gateway: Gateway, options: Options) -> Config:
    return Config(
        application(gateway),
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # what fails is logged at the door
        access_log=False,
        server_header=False,
        proxy_headers=False,  # an address comes from the socket, never from a header
        backlog=BACKLOG,
        timeout_keep_alive=options.limits.idle_s,
        timeout_graceful_shutdown=GRACE_S,
    )


def _now() -> datetime:
    return datetime.now(UTC)


async def _kept_up(work: Coroutine[None, None, None]) -> None:
    """What must go on as long as the gateway does; its end would be a defect, so it is told."""
    try:
        await work
    except asyncio.CancelledError:
        raise
    except Exception:
        _LOG.exception("a part of the gateway ended")
        raise
