"""A server of its own: models into a table, the table behind a server, until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edgefleet.errors import ConflictError, InvalidInputError
from edgefleet_runtime import collector
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.notify import ServiceManager, keep_alive
from edgefleet_runtime.otlp.extra import otlp_export
from edgefleet_runtime.parent import watch_parent
from edgefleet_runtime.serve.access import Access, check_access, tls_context, token_check
from edgefleet_runtime.serve.grpc.extra import grpc_server_type
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.queueing import BatchLimits
from edgefleet_runtime.serve.server import Server
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.standalone.agent import EdgeManagerConfig, edge_manager_server
from edgefleet_runtime.standalone.loading import load_bundle, load_file
from edgefleet_runtime.standalone.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_runtime.serve.edgemanager.server import EdgeManagerServer
    from edgefleet_runtime.serve.grpc.server import GrpcServer
    from edgefleet_runtime.serve.metrics import Source
    from edgefleet_runtime.serve.table import ServedModel
    from edgefleet_runtime.standalone.control import RepositoryControl
    from edgefleet_runtime.standalone.repository import ModelRepository

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

DRAIN_S = 8.0
OTLP_S = 2.0  # for the last metrics and traces


class StandaloneConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve and where.

    Attributes:
        models: files by the name to serve them under.
        bundles: folders of bundles, likewise.
        repository: a Triton model repository.
        load: the models of the repository to begin with; None for all of them.
        model_control: callers on other machines may load and unload the repository's models, as
            those on this one may.
        allow_overrides: who may load a model may bring its configuration and its files.
        options: how to open models.
        host: address to serve on; None for none.
        port: 0 for one that is free.
        uds: path of a Unix socket to serve on as well.
        grpc_host: address to serve gRPC on; None for none.
        grpc_port: 0 for one that is free.
        grpc_uds: path of a Unix socket to serve gRPC on as well.
        access: who may use those addresses.
        batching: how large batches may become.
        limits: what is accepted before requests are refused.
        edge_manager: what clients of Edge Manager's agent are offered; None for nothing.
        otlp: address of a collector for metrics and traces; empty for the one that the environment
            names, None for none.
        exit_with_parent: stop when standard input ends.
    """

    models: dict[str, Path] = {}
    bundles: dict[str, Path] = {}
    repository: Path | None = None
    load: tuple[str, ...] | None = None
    model_control: bool = False
    allow_overrides: bool = False
    options: EngineOptions = EngineOptions()
    host: str | None = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    grpc_host: str | None = None
    grpc_port: int = 0
    grpc_uds: Path | None = None
    access: Access = Access()
    batching: BatchLimits = BatchLimits()
    limits: Limits = Limits()
    edge_manager: EdgeManagerConfig | None = None
    otlp: str | None = None
    exit_with_parent: bool = False

    def __post_init__(self) -> None:
        """Refuse to serve nothing, and what is said about a repository that there isn't."""
        asked = self.edge_manager is not None and self.edge_manager.models
        if not (self.models or self.bundles or self.repository or asked):
            raise InvalidInputError(
                "there is nothing to serve",
                cure="name a model: --model NAME=FILE.onnx, --bundle DIR or --model-repository DIR",
            )
        if self.repository is None and (
            self.model_control or self.allow_overrides or self.load is not None
        ):
            raise InvalidInputError(
                "models are loaded on request from a model repository, and there is none",
                cure="give --model-repository DIR, or leave out --model-control, "
                "--allow-overrides and --load-model",
            )


def fill(table: ModelTable, config: StandaloneConfig, scratch: Scratch) -> ModelRepository | None:
    """Load everything that a configuration names.

    Args:
        table: takes the models.
        config: names them.
        scratch: bundles are laid out there; must stay while they serve.

    Returns:
        The repository, if the configuration names one.

    Raises:
        EdgeFleetError: a model can't be served; the message names it.
        ConflictError: two models have one name.
    """
    served: dict[str, ServedModel] = {}
    options = config.options
    makers: list[tuple[Mapping[str, Path], Callable[[str, Path], ServedModel]]] = [
        (config.models, lambda name, path: load_file(name, path, options)),
        (
            config.bundles,
            lambda name, path: load_bundle(name, path, scratch.folder() / "bundle", options),
        ),
    ]
    for sources, make in makers:
        for name, path in sources.items():
            if name in served:
                raise _taken(name)
            served[name] = make(name, path)
    table.swap(served)
    if config.repository is None:
        return None
    # Ensembles come with it, which a server of single models does without.
    from edgefleet_runtime.standalone.repository import ModelRepository  # noqa: PLC0415

    repository = ModelRepository(config.repository, table, options)
    for name in repository.names():
        if name in served:
            raise _taken(name)
    for name in repository.names() if config.load is None else config.load:
        repository.ensure(name)
    return repository


async def serve(config: StandaloneConfig, *, announce: Callable[[str], None]) -> None:
    """Serve until a signal comes.

    One that comes while models are being loaded ends it at once. The thread that loads goes on
    then: the process has to be left without waiting for it.

    Args:
        config: what and where.
        announce: called with a line a server when clients can connect to all of them.
    """
    _check(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if config.exit_with_parent:
        threading.Thread(target=watch_parent, args=(loop, stop), daemon=True).start()
    table = ModelTable()
    with Scratch() as scratch:
        filling = _in_a_thread(lambda: fill(table, config, scratch))
        if not await _comes_first(filling, stop):
            _log.info("told to stop while models were being loaded")
            return
        repository = await filling
        _tell(table)
        control = None if repository is None else _control(config, repository, table, scratch)
        otlp = None if config.otlp is None else otlp_export(config.otlp)
        server = _server(config, table, control, None if otlp is None else otlp.families)
        others = _others(config, server, scratch)
        servers = (server, *others.values())
        await _start(servers)
        manager = ServiceManager()
        life = asyncio.create_task(keep_alive(manager, _always))
        try:
            if otlp is not None:
                table.observers.append(otlp.observe)
                otlp.start(server.families)
            collector.started()
            announce(f"serving on {server.endpoint}")
            for what, other in others.items():
                announce(f"serving {what} on {other.endpoint}")
            manager.ready()
            await stop.wait()
            manager.stopping()
        finally:
            life.cancel()
            await asyncio.gather(*(each.stop(DRAIN_S) for each in servers))
        if otlp is not None:
            await asyncio.to_thread(otlp.stop, OTLP_S)
        for model in table.swap({}):
            model.retire()


def _check(config: StandaloneConfig) -> None:
    """Refuse what can't listen before models are loaded, which may take minutes.

    Raises:
        ConfigurationError: as `check_access`, `token_check` and `tls_context`.
        MissingExtraError: gRPC is asked for, and it isn't installed.
    """
    for host in (config.host, config.grpc_host):
        if host is not None:
            check_access(host, config.access)
    token_check(config.access)
    tls_context(config.access)
    if config.grpc_host is not None or config.grpc_uds is not None:
        grpc_server_type()


def _in_a_thread(work: Callable[[], _T]) -> asyncio.Future[_T]:
    """Begin work that may block for long. The thread ends with it; the loop doesn't wait for it."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="start")
    done = asyncio.get_running_loop().run_in_executor(pool, work)
    pool.shutdown(wait=False)
    return done


async def _comes_first(work: asyncio.Future[_T], stop: asyncio.Event) -> bool:
    """Whether the work is done, or failed, before the signal; else its end is awaited no more."""
    told = asyncio.ensure_future(stop.wait())
    either: tuple[asyncio.Future[Any], ...] = (work, told)
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if work.done():
        return True
    work.cancel()
    return False


def _control(
    config: StandaloneConfig, repository: ModelRepository, table: ModelTable, scratch: Scratch
) -> RepositoryControl:
    from edgefleet_runtime.standalone.control import (  # noqa: PLC0415 - for a repository alone
        RepositoryControl,
    )

    return RepositoryControl(
        repository,
        table,
        scratch=scratch if config.allow_overrides else None,
        fixed=frozenset({*config.models, *config.bundles}),
    )


def _always() -> bool:
    """Ready: what was asked for is loaded before anybody listens."""
    return True


def _server(
    config: StandaloneConfig,
    table: ModelTable,
    control: RepositoryControl | None,
    figures: Source | None,
) -> Server:
    return Server(
        table,
        config.host,
        config.port,
        uds=config.uds,
        access=config.access,
        ready=_always,
        control=control,
        remote_control=config.model_control,
        figures=figures,
        batching=config.batching,
        limits=config.limits,
    )


def _others(
    config: StandaloneConfig, server: Server, scratch: Scratch
) -> dict[str, GrpcServer | EdgeManagerServer]:
    """The servers beside it, by what they speak."""
    others: dict[str, GrpcServer | EdgeManagerServer] = {}
    if config.grpc_host is not None or config.grpc_uds is not None:
        others["gRPC"] = grpc_server_type()(
            server.extensions,
            config.grpc_host,
            config.grpc_port,
            uds=config.grpc_uds,
            access=config.access,
            limits=config.limits,
            ready=_always,
        )
    if config.edge_manager is not None:
        others["Edge Manager's agent API"] = edge_manager_server(
            config.edge_manager, server.extensions.table, config.options, scratch.folder()
        )
    return others


async def _start(servers: tuple[Server | GrpcServer | EdgeManagerServer, ...]) -> None:
    """Start all of them, or none."""
    try:
        for server in servers:
            await server.start()
    except BaseException:
        await asyncio.gather(*(server.stop(0.0) for server in servers))
        raise


def _tell(table: ModelTable) -> None:
    for model in table:
        on, nodes = ", ".join(model.model.providers), dict(model.model.nodes)
        _log.info("%s:%s runs on %s %s", model.name, model.version, on, nodes or "")


def _taken(name: str) -> ConflictError:
    return ConflictError(
        f"two models are to be served as {name!r}", cure="give each its name", retryable=False
    )
