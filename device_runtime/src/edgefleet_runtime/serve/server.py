"""The server: a table of models behind TCP on loopback and a Unix socket.

It runs on the event loop it is started on; `edgefleet_runtime.serve.loop.run` picks the fastest.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError, ConflictError
from edgefleet_runtime.engines.cuda import find_cuda
from edgefleet_runtime.serve.access import (
    Access,
    check_access,
    is_loopback,
    tls_context,
    token_guard,
    warn_of_clear_text,
)
from edgefleet_runtime.serve.descriptors import FilesWatch
from edgefleet_runtime.serve.extensions.cuda_memory import CudaRegions
from edgefleet_runtime.serve.extensions.memory import SharedMemory
from edgefleet_runtime.serve.extensions.service import Extensions
from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions
from edgefleet_runtime.serve.hosts import known_hosts
from edgefleet_runtime.serve.http import HttpService
from edgefleet_runtime.serve.lanes import Lanes
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.metrics import Metrics
from edgefleet_runtime.serve.oip import OipService
from edgefleet_runtime.serve.sockets import BACKLOG, SocketFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.engines.cuda import CudaRuntime
    from edgefleet_runtime.serve.extensions.readings import Hear
    from edgefleet_runtime.serve.extensions.repository import ModelControl
    from edgefleet_runtime.serve.http import Handler
    from edgefleet_runtime.serve.metrics import Source
    from edgefleet_runtime.serve.queueing import BatchLimits
    from edgefleet_runtime.serve.table import ModelTable

_log = logging.getLogger(__name__)


class Server:
    """Serves the models of a table over Open Inference Protocol v2.

    Args:
        table: the models; swapped by its owner while requests come.
        host: address to listen on; None for no TCP at all.
        port: 0 for one that is free.
        uds: path of a Unix socket to listen on as well.
        uds_mode: permissions of that socket.
        limits: what is accepted before requests are refused.
        ready: whether ``/v2/health/ready`` says yes; without it, whether the table has a model.
        settled: whether ``/v2/health/settled`` says yes; without it, as ``ready``.
        access: who may use the address; the Unix socket has its permissions instead.
        threads: for models that run long; 0 for as many as the machine has cores.
        figures: gives what ``/metrics`` tells beside the models.
        control: loads and unloads models on request of callers on this machine, who come over
            loopback or the Unix socket; None to refuse that.
        remote_control: do so for callers on other machines as well.
        cuda: gives the CUDA runtime that shared memory on GPUs needs, or None; asked when needed.
        batching: how large batches may become.
        hear: takes the readings that are posted; None to take none.
    """

    def __init__(
        self,
        table: ModelTable,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        uds: Path | None = None,
        uds_mode: int = 0o660,
        limits: Limits | None = None,
        ready: Callable[[], bool] | None = None,
        settled: Callable[[], bool] | None = None,
        access: Access | None = None,
        threads: int = 0,
        figures: Source | None = None,
        control: ModelControl | None = None,
        remote_control: bool = False,
        cuda: Callable[[], CudaRuntime | None] = find_cuda,
        batching: BatchLimits | None = None,
        hear: Hear | None = None,
    ) -> None:
        if host is None and uds is None:
            msg = "a server needs an address or a Unix socket to listen on"
            raise ConfigurationError(msg)
        access = access or Access()
        if host is not None:
            check_access(host, access)
        self._admit = token_guard(access)
        self._tls = tls_context(access)
        if host is not None:
            warn_of_clear_text(host, access)
        # A page of the world's can bring neither.
        guarded = self._admit is not None or self._tls is not None
        self._knows = None if guarded else known_hosts(access.allow_hosts)
        self._host = host
        self._port = port
        self._socket = None if uds is None else SocketFile(uds, uds_mode)
        self._limits = limits or Limits()
        self._ready = ready or (lambda: any(True for _ in table))
        self._settled = settled or self._ready
        self._metrics = Metrics(table, figures)
        self.families = self._metrics.families
        """Gives the figures that ``/metrics`` tells, for other ways to tell them."""
        regions = None
        if SystemRegions.supported():
            most = self._limits.max_body_bytes
            regions = SharedMemory(
                SystemRegions(max_bytes=most), CudaRegions(max_bytes=most, find=cuda)
            )
        self.extensions = Extensions(
            table,
            control=control,
            regions=regions,
            remote_control=remote_control,
            hear=hear,
            lanes=Lanes(table, limits=self._limits, batching=batching, threads=threads),
        )
        self._open = False
        self._files: FilesWatch | None = None
        self._services: list[HttpService] = []
        self._listeners: list[asyncio.Server] = []
        self._endpoint = ""

    @property
    def endpoint(self) -> str:
        """Where clients reach it: ``http[s]://HOST:PORT``, or ``unix:PATH`` without TCP.

        Empty before `start`.
        """
        return self._endpoint

    async def start(self) -> None:
        """Listen; returns when clients can connect.

        Raises:
            ConflictError: the port or the socket is in use by a process that lives.
            ConfigurationError: the address or the socket's path can't be listened on.
        """
        self.extensions.enter()
        self._open = True
        self._files = FilesWatch()
        service = OipService(
            self.extensions, ready=self._ready, settled=self._settled, metrics=self._metrics
        )
        try:
            await self._listen(service)
        except BaseException:
            await self.stop(0.0)
            raise
        _log.info("serving on %s", self._endpoint)

    async def stop(self, drain_s: float = 10.0) -> None:
        """Stop listening, finish what has begun within ``drain_s`` and cut the rest.

        May be called twice.
        """
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        if self._socket is not None:
            self._socket.remove()
        services, self._services = self._services, []
        await asyncio.gather(*(service.drain(drain_s) for service in services))
        if self._files is not None:
            self._files.close()
        if self._open:
            self._open = False
            self.extensions.leave()

    async def _listen(self, handler: Handler) -> None:
        loop = asyncio.get_running_loop()
        trusted = self._host is None or is_loopback(self._host)
        http = HttpService(handler, self._limits, self._admit, local=trusted, knows=self._knows)
        self._services.append(http)
        if self._socket is not None:
            local = http
            if self._admit is not None or not trusted:
                # Nothing that one side has learned is known to the other.
                local = HttpService(handler, self._limits, local=True)
                self._services.append(local)
            listener = await loop.create_unix_server(
                local.unix_connection, sock=self._socket.listen(), backlog=BACKLOG
            )
            self._listeners.append(listener)
            self._endpoint = f"unix:{self._socket.path}"
        if self._host is not None:
            try:
                listener = await loop.create_server(
                    http.connection,
                    self._host,
                    self._port,
                    backlog=BACKLOG,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._limits.head_timeout_s if self._tls else None,
                )
            except OSError as error:
                msg = f"can't listen on {self._host}:{self._port}: "
                if error.errno == errno.EADDRINUSE:
                    cure = "choose another port, or 0 for a free one"
                    raise ConflictError(f"{msg}it is in use", cure=cure) from error
                msg += error.strerror or str(error)
                raise ConfigurationError(msg, cure="choose an address and port of ours") from error
            self._listeners.append(listener)
            address, port, *_ = listener.sockets[0].getsockname()
            scheme = "http" if self._tls is None else "https"
            shown = f"[{address}]" if ":" in address else address
            self._endpoint = f"{scheme}://{shown}:{port}"
