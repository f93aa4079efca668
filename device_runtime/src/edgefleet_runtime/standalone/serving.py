"""A server of its own: models into a table, the table behind a server, until a signal comes."""

from __future__ import annotations

import asyncio
import logging
import signal
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import ConflictError
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.otlp.extra import otlp_export
from edgefleet_runtime.parent import watch_parent
from edgefleet_runtime.serve.access import Access
from edgefleet_runtime.serve.server import Server
from edgefleet_runtime.serve.table import ModelTable
from edgefleet_runtime.standalone.agent import EdgeManagerConfig, edge_manager_server
from edgefleet_runtime.standalone.loading import load_bundle, load_file
from edgefleet_runtime.standalone.repository import ModelRepository

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_runtime.serve.edgemanager.server import EdgeManagerServer
    from edgefleet_runtime.serve.table import ServedModel

_log = logging.getLogger(__name__)

DRAIN_S = 8.0
OTLP_S = 2.0  # for the last metrics and traces


class StandaloneConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve and where.

    Attributes:
        models: files by the name to serve them under.
        bundles: folders of bundles, likewise.
        repository: a Triton model repository; every model in it is served.
        options: how to open models.
        host: address to serve on; None for none.
        port: 0 for one that is free.
        uds: path of a Unix socket to serve on as well.
        access: who may use that address.
        edge_manager: what clients of Edge Manager's agent are offered; None for nothing.
        otlp: address of a collector for metrics and traces; empty for the one that the environment
            names, None for none.
        exit_with_parent: stop when standard input ends.
    """

    models: dict[str, Path] = {}
    bundles: dict[str, Path] = {}
    repository: Path | None = None
    options: EngineOptions = EngineOptions()
    host: str | None = "127.0.0.1"
    port: int = 8000
    uds: Path | None = None
    access: Access = Access()
    edge_manager: EdgeManagerConfig | None = None
    otlp: str | None = None
    exit_with_parent: bool = False


def fill(table: ModelTable, config: StandaloneConfig, work: Path) -> ModelRepository | None:
    """Load everything that a configuration names.

    Args:
        table: takes the models.
        config: names them.
        work: folder in which bundles are laid out; must stay while they serve.

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
        (config.bundles, lambda name, path: load_bundle(name, path, work, options)),
    ]
    for sources, make in makers:
        for name, path in sources.items():
            if name in served:
                raise _taken(name)
            served[name] = make(name, path)
    table.swap(served)
    if config.repository is None:
        return None
    repository = ModelRepository(config.repository, table, options)
    for name in repository.names():
        if name in served:
            raise _taken(name)
        repository.load(name)
    return repository


async def serve(config: StandaloneConfig, *, announce: Callable[[str], None]) -> None:
    """Serve until a signal comes.

    Args:
        config: what and where.
        announce: called with the endpoint when clients can connect.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    table = ModelTable()
    with ExitStack() as stack:
        work = Path()
        if config.bundles or config.edge_manager:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgefleet-")))
        fill(table, config, work)
        _tell(table)
        otlp = None if config.otlp is None else otlp_export(config.otlp)
        server = Server(
            table,
            config.host,
            config.port,
            uds=config.uds,
            access=config.access,
            figures=None if otlp is None else otlp.families,
        )
        agent = None
        if config.edge_manager is not None:
            agent = edge_manager_server(config.edge_manager, table, config.options, work)
        servers = tuple(each for each in (server, agent) if each is not None)
        await _start(servers)
        if config.exit_with_parent:
            threading.Thread(target=watch_parent, args=(loop, stop), daemon=True).start()
        if otlp is not None:
            table.observers.append(otlp.observe)
            otlp.start(server.families)
        announce(server.endpoint)
        await stop.wait()
        await asyncio.gather(*(each.stop(DRAIN_S) for each in servers))
        if otlp is not None:
            await asyncio.to_thread(otlp.stop, OTLP_S)
        for model in table.swap({}):
            model.retire()


async def _start(servers: tuple[Server | EdgeManagerServer, ...]) -> None:
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
