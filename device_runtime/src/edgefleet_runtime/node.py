"""One device's runtime, put together from its parts: channel, store, engines, server, spool.

Threads: the server's event loop in the main thread, the reconciler, the watch, and the spool. A
signal ends all in order within `config.STOP_S`: the server finishes what has begun, the watch looks
at what waits, the spool closes and uploads what it can, a last report says so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import CancelledError
from edgefleet.protocol.orders import TrialAnswer
from edgefleet.protocol.target import TARGET_LABEL
from edgefleet_runtime import __version__, collector
from edgefleet_runtime.channels.discovery import channel_named
from edgefleet_runtime.channels.orders import Hear, ordering
from edgefleet_runtime.channels.requests import asker
from edgefleet_runtime.config import ENGINES, STOP_S
from edgefleet_runtime.device_watch import DeviceWatch
from edgefleet_runtime.engines.build import Build
from edgefleet_runtime.engines.builds import check_one_build
from edgefleet_runtime.engines.cache import EngineCache
from edgefleet_runtime.engines.discovery import engine_for
from edgefleet_runtime.engines.installed import installed_engines
from edgefleet_runtime.figures import device_families
from edgefleet_runtime.inbox import Gathered, Inbox
from edgefleet_runtime.lock import RootLock
from edgefleet_runtime.notify import ServiceManager, keep_alive
from edgefleet_runtime.otlp.extra import otlp_export
from edgefleet_runtime.parent import watch_parent
from edgefleet_runtime.reconciler.acquire import Acquirer
from edgefleet_runtime.reconciler.candidates import ranked
from edgefleet_runtime.reconciler.driver import Driver
from edgefleet_runtime.reconciler.improve import Improver
from edgefleet_runtime.reconciler.memory import MemoryFile
from edgefleet_runtime.reconciler.ordered_trial import Means, OrderedTrials
from edgefleet_runtime.reconciler.rack import Rack
from edgefleet_runtime.reconciler.slot import Workbench
from edgefleet_runtime.reconciler.timings import TimingsFile, fingerprint
from edgefleet_runtime.reconciler.trial import Trial
from edgefleet_runtime.reconciler.trial_file import TrialFile
from edgefleet_runtime.reconciler.tryout import Tryout
from edgefleet_runtime.report import host
from edgefleet_runtime.serve.edgemanager.extra import edge_manager_server_type
from edgefleet_runtime.serve.grpc.extra import grpc_server_type
from edgefleet_runtime.serve.server import Server
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.spool.on_demand import OnDemand
from edgefleet_runtime.spool.recorders import SpoolRecorder
from edgefleet_runtime.spool.spool import Spool
from edgefleet_runtime.store.bandwidth import Bandwidth
from edgefleet_runtime.store.blobs import BlobStore
from edgefleet_runtime.store.fetch import Fetcher
from edgefleet_runtime.sync.lane import in_thread
from edgefleet_runtime.sync.sync import Sync
from edgefleet_runtime.upgrade.places import Places
from edgefleet_runtime.upgrade.upgrader import RESTART, Condition, Upgrader
from edgefleet_runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.protocol.event import Event, Reading
    from edgefleet.protocol.report import Report
    from edgefleet_runtime.config import NodeConfig
    from edgefleet_runtime.engines.base import Engine
    from edgefleet_runtime.serve.edgemanager.server import EdgeManagerServer
    from edgefleet_runtime.serve.grpc.server import GrpcServer

_log = logging.getLogger(__name__)

# Longest that the server waits for a busier thread, and that one for it. With Python's 0.005 it
# waits too long; with 0.0002 threads that do small things interrupt its requests.
SWITCH_S = 0.001

DRAIN_S = STOP_S * 0.5
JOIN_S = STOP_S * 0.25
WATCH_S = STOP_S * 0.1
FLUSH_S = STOP_S * 0.15


class Cycle(NamedTuple):
    """What a device that sleeps did while it was awake.

    Attributes:
        report: the last one.
        delivered: whether it and all telemetry were.
        gathered: what became of the inbox.
        refused: whether the newest pointer was refused.
        told: whether it is known what the fleet asks for: the channel could tell, and no full disk
            kept its pointer from being taken in.
    """

    report: Report
    delivered: bool
    gathered: Gathered
    refused: bool
    told: bool


class Node:
    """A device's runtime.

    Raises:
        ConflictError: another runtime uses the folder.
        ConfigurationError: channel, address or folder can't be used, or an extra is missing.
    """

    def __init__(self, config: NodeConfig) -> None:
        check_one_build()
        channel_type = channel_named(config.channel)
        self._config = config
        self._channel = channel_type.from_options(config.channel_options, device=config.device)
        table = ModelTable()
        self._server = Server(
            table,
            config.host,
            config.port,
            uds=config.uds,
            access=config.access,
            batching=config.batching,
            limits=config.limits,
            hear=self._hear,
            ready=lambda: self._worker.ready,
            settled=lambda: self._worker.settled,
            figures=lambda: (
                *device_families(
                    store,
                    self._spool,
                    fetcher,
                    self._driver.state,
                    self._driver.outside.lag_s,
                ),
                *(self._otlp.families() if self._otlp else ()),
            ),
        )
        self._otlp = (
            None if config.otlp is None else otlp_export(config.otlp, instance=config.device)
        )
        self._grpc = self._grpc_server()
        if config.edge_manager_uds is not None:
            edge_manager_server_type()  # a missing extra is told before anything is touched
        self._lock = RootLock(config.root)  # before anything in the folder is touched
        store = BlobStore(config.root, config.store_max_bytes)
        limit = config.fetch_max_bytes_per_s
        bandwidth = None if limit is None else Bandwidth(limit)
        fetcher = Fetcher(store, pause=self._pause, check=self._check, bandwidth=bandwidth)
        engines = [engine for engine in installed_engines() if not engine.problem]
        external = _external(config)
        providers = {provider for engine in engines for provider in engine.providers}
        formats = {name for engine in engines for name in engine.formats}
        if external is not None:
            formats = set(external.formats)
        labels = {**host.labels(providers=providers), **config.labels}
        offered = tuple(sorted(providers)) if external is None else (f"at {config.external}",)
        machine = fingerprint(labels, providers=offered)
        timings = TimingsFile(config.root, machine)
        rank = partial(ranked, record_of=lambda c: timings.get(c.variant.manifest.digest))
        acquirer = Acquirer(store, fetcher, labels=labels, formats=formats, rank=rank)
        find_engine = engine_for if external is None else lambda _: external
        bench = Workbench(store, find_engine, self._check)
        self._spool = Spool(
            config.root / "spool",
            self._channel,
            device=config.device,
            max_bytes=config.spool_max_bytes,
            syncing=partial(Sync, metered=config.metered, start=in_thread),
        )
        self._agent = _agent_server(config, table, self._spool)
        self._watch = DeviceWatch(
            table,
            self._spool,
            lambda: self._driver.rack.slots,
            config.root,
            config.actions,
        )
        self._on_demand = OnDemand(
            table,
            SpoolRecorder(self._spool),
            lambda: self._driver.telemetry,
            self._watch.redactor,
        )
        self._table = table
        table.observers.append(self._spool.intake.observe)
        if self._otlp is not None:
            table.observers.append(self._otlp.observe)
        engines_folder = config.root / ENGINES
        rack = Rack(
            store,
            acquirer,
            bench,
            table,
            memory_max_bytes=config.memory_max_bytes,
            engine_cache=engines_folder,
            on_serve=self._serves,
            on_compared=self._watch.tap.compared,
        )
        cache = EngineCache(engines_folder)
        cache.sweep()
        improver = Improver(
            rack=rack,
            acquirer=acquirer,
            timings=timings,
            trial=Trial(
                healthy_after_s=config.healthy_after_s,
                clock=time.monotonic,
                alarm=self._channel.wake,
            ),
            start_build=partial(Build, done=self._channel.wake),
            cache=cache,
            cache_max_bytes=config.engine_cache_max_bytes,
            trial_max_bytes=config.trial_bytes,
            pause=self._pause,
            clock=time.monotonic,
        )
        trials = OrderedTrials(
            Means(
                store=store,
                fetcher=fetcher,
                acquirer=acquirer,
                bench=bench,
                engine_for=engine_for,
                memory_left=lambda: rack.memory_left,
                start=partial(Tryout, done=self._channel.wake),
                max_bytes=config.trial_bytes,
            ),
            TrialFile(config.root),
            about=TrialAnswer(
                id="",
                bundle="",
                state="waiting",
                machine=machine,
                target=labels.get(TARGET_LABEL, ""),
                runtime=__version__,
            ),
            clock=time.monotonic,
            wake=self._channel.wake,
            refusal="" if external is None else f"models here run at {config.external}",
        )
        self._driver = Driver(
            device=config.device,
            fleet=config.fleet,
            channel=self._channel,
            rack=rack,
            improver=improver,
            trials=trials,
            memory_file=MemoryFile(config.root),
            on_release=self._spool.follow,
            on_event=self._spool.tell,
            healthy_after_s=config.healthy_after_s,
        )
        places = Places.here(Path(__file__))
        self._upgrader = (
            None
            if places is None
            else Upgrader(
                places,
                self._channel,
                device=config.device,
                condition=self._condition,
                healthy_after_s=config.healthy_after_s,
                bandwidth=bandwidth,
            )
        )
        self._worker = Worker(
            driver=self._driver,
            channel=self._channel,
            store=store,
            fetcher=fetcher,
            spool=self._spool,
            root=config.root,
            labels=labels,
            endpoint=lambda: self._server.endpoint,
            pid=os.getpid(),
            upgrader=self._upgrader,
        )

    @property
    def exit_status(self) -> int:
        """What the process ends with: whether it is to be started again at once."""
        return RESTART if self._upgrader is not None and self._upgrader.restart else 0

    def _condition(self) -> Condition:
        outside = self._driver.outside
        return Condition(
            serves=self._worker.ready, reached=outside.live and outside.access.state == "ok"
        )

    @property
    def _servers(self) -> tuple[Server | GrpcServer | EdgeManagerServer, ...]:
        return tuple(each for each in (self._server, self._grpc, self._agent) if each is not None)

    def _grpc_server(self) -> GrpcServer | None:
        config = self._config
        if config.grpc_host is None and config.grpc_uds is None:
            return None
        return grpc_server_type()(
            self._server.extensions,
            config.grpc_host,
            config.grpc_port,
            uds=config.grpc_uds,
            access=config.access,
            limits=config.limits,
            ready=lambda: self._worker.ready,
        )

    async def run(self) -> bool:
        """Serve until a signal comes, or the parent goes if the configuration says so.

        Returns:
            Whether everything ended in time; else threads are left in calls that don't end.
        """
        stop = asyncio.Event()
        sys.setswitchinterval(SWITCH_S)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            for server in self._servers:
                await server.start()
        except BaseException:
            await asyncio.gather(*(server.stop(0.0) for server in self._servers))
            raise
        if self._config.exit_with_parent:
            watch = threading.Thread(target=watch_parent, args=(loop, stop), daemon=True)
            watch.start()
        hear = Hear(
            lambda order: self._driver.roll_back(by=order.by, reason=order.reason),
            self._on_demand.take,
            lambda: self._worker.latest,
            self._driver.try_out,
        )
        self._channel.serve(ordering(hear, asker(lambda: self._server.endpoint)))
        self._channel.delay_restarts(lambda: self._driver.busy)
        self._spool.start()
        self._watch.watch.start()
        self._worker.start()
        if self._otlp is not None:
            self._otlp.start(self._server.families)
        if self._upgrader is not None:
            self._upgrader.start(lambda: loop.call_soon_threadsafe(stop.set))
        collector.started()
        manager = ServiceManager()
        manager.ready()
        living = asyncio.ensure_future(keep_alive(manager, self._worker.healthy))
        await stop.wait()
        living.cancel()
        manager.stopping()
        return await self._stop()

    def once(self, timeout_s: float, inbox: Path | None = None) -> Cycle:
        """Do what the fleet asks for now, report, hand over what the spool holds; serve nothing.

        Args:
            timeout_s: how long to work on it, and then to send; what still runs is broken off.
            inbox: folder of requests that gathered, to be answered; see `Inbox`.
        """
        ends = time.monotonic() + timeout_s
        self._spool.recover()
        try:
            reported = self._worker.once(timeout_s)
            gathered = self._answer(inbox, ends) if inbox is not None else Gathered(0, 0, 0)
            self._watch.finish(WATCH_S)
            self._spool.sync.stop_within(timeout_s)
            self._spool.finish()
            self._watch.settle()
            delivered = reported and not self._spool.pending
            return Cycle(
                self._worker.report(),
                delivered,
                gathered,
                refused=self._driver.refused,
                told=self._driver.outside.told,
            )
        finally:
            self._spool.close()
            self._channel.close()
            self._lock.release()

    def _answer(self, inbox: Path, ends: float) -> Gathered:
        """Answer what has gathered in an inbox, until its time ends."""

        def keep(events: Sequence[Event]) -> list[bool]:
            safe: list[bool] = []
            for event in events:
                self._spool.keep(event, safe.append)
            self._watch.checkpoint()
            self._spool.turn()
            return safe

        box = Inbox(
            inbox,
            self._table,
            self._driver.telemetry,
            tell=self._spool.tell,
            keep=keep,
            each=self._watch.watch.work,
        )
        return box.work(until=lambda: time.monotonic() >= ends)

    def _hear(self, reading: Reading, made: float | None) -> bool:
        return self._watch.tap.hear(reading, made)

    def _serves(self) -> None:
        """Watch what answers requests from now on, under its own policy from the first on."""
        self._on_demand.attend()
        running = self._driver.rack.running
        if running is not None:
            self._watch.watch.follow(running.acquired.release)

    async def _stop(self) -> bool:
        _log.info("stopping")
        self._worker.stop()
        await asyncio.gather(*(server.stop(DRAIN_S) for server in self._servers))
        joining = [
            asyncio.to_thread(self._worker.join, JOIN_S),
            asyncio.to_thread(self._on_demand.close, JOIN_S),
        ]
        if self._upgrader is not None:
            joining.append(asyncio.to_thread(self._upgrader.stop, JOIN_S))
        if self._otlp is not None:
            *ends, _ = await asyncio.gather(*joining, asyncio.to_thread(self._otlp.stop, JOIN_S))
        else:
            ends = await asyncio.gather(*joining)
        watched = await asyncio.to_thread(self._watch.stop, WATCH_S)
        ended = all(ends) and watched
        ended = await asyncio.to_thread(self._spool.stop, FLUSH_S) and ended
        if ended:
            self._watch.settle()
        self._channel.close()
        self._lock.release()
        return ended

    def _check(self) -> None:
        """Break long work off when the process stops, or the pointer may have changed."""
        self._worker.working()
        if self._worker.stopping.is_set() or (self._driver.outside.live and self._channel.wait(0)):
            raise CancelledError("something changed meanwhile", retryable=True)

    def _pause(self, seconds: float) -> None:
        """Wait, and break work off as `_check` does: the channel tells of a change only once."""
        if self._channel.wait(seconds):
            raise CancelledError("something changed meanwhile", retryable=True)


def _agent_server(config: NodeConfig, table: ModelTable, spool: Spool) -> EdgeManagerServer | None:
    """Edge Manager's API over what the fleet delivers, if it is asked for."""
    if config.edge_manager_uds is None:
        return None
    server = edge_manager_server_type()
    from edgefleet_runtime.serve.edgemanager.captures import Captures  # noqa: PLC0415 - the extra
    from edgefleet_runtime.serve.edgemanager.models import FixedModels  # noqa: PLC0415

    return server(
        table,
        config.edge_manager_uds,
        models=FixedModels(
            table, "what runs here is the fleet's to change: fleet.deploy(…), fleet.remove(…)"
        ),
        captures=Captures(SpoolRecorder(spool)),
    )


def _external(config: NodeConfig) -> Engine | None:
    """The server that runs the models in place of an engine here, if there is one."""
    if config.external is None:
        return None
    from edgefleet_runtime.engines.external import ExternalEngine  # noqa: PLC0415 - few need it

    return ExternalEngine(
        config.external, repository=config.external_repository, model=config.external_model
    )
