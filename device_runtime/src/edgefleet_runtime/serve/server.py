"""The server: a table of models behind TCP on loopback and a Unix socket.

It runs on the event loop it is started on; `edgefleet_runtime.serve.loop.run` picks the fastest.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError, ConflictError
from edgefleet_runtime.serve.access import (
    Access,
    check_access,
    is_loopback,
    tls_context,
    token_guard,
)
from edgefleet_runtime.serve.extensions.service import Extensions
from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions
from edgefleet_runtime.serve.http import HttpService
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.metrics import Metrics
from edgefleet_runtime.serve.oip import OipService

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.serve.extensions.repository import ModelControl
    from edgefleet_runtime.serve.http import Handler
    from edgefleet_runtime.serve.metrics import Source
    from edgefleet_runtime.serve.table import ModelTable

_log = logging.getLogger(__name__)

_BACKLOG = 128
_MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107  # bytes; sockaddr_un less its NUL


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
        access: who may use the address; the Unix socket has its permissions instead.
        threads: for models that run long; 0 for as many as the machine has cores.
        figures: gives what ``/metrics`` tells beside the models.
        control: loads and unloads models on request; None to refuse that.
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
        access: Access | None = None,
        threads: int = 0,
        figures: Source | None = None,
        control: ModelControl | None = None,
    ) -> None:
        if host is None and uds is None:
            msg = "a server needs an address or a Unix socket to listen on"
            raise ConfigurationError(msg)
        access = access or Access()
        if host is not None:
            check_access(host, access)
        self._admit = token_guard(access)
        self._tls = tls_context(access)
        if host is not None and not is_loopback(host) and self._tls is None:
            _log.warning("whoever sees the network of %s sees tokens and data: no --tls-cert", host)
        self._table = table
        self._host = host
        self._port = port
        self._uds = uds
        self._uds_mode = uds_mode
        self._limits = limits or Limits()
        self._ready = ready or (lambda: any(True for _ in table))
        self._threads = threads or os.cpu_count() or 1
        self._metrics = Metrics(table, figures)
        self.families = self._metrics.families
        """Gives the figures that ``/metrics`` tells, for other ways to tell them."""
        remote = host is not None and not is_loopback(host)
        shared = SystemRegions.supported() and not remote
        regions = SystemRegions(max_bytes=self._limits.max_body_bytes) if shared else None
        self.extensions = Extensions(table, control=control, regions=regions)
        self._pool: ThreadPoolExecutor | None = None
        self._services: list[HttpService] = []
        self._listeners: list[asyncio.Server] = []
        self._uds_inode: int | None = None
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
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="edgefleet-infer")
        service = OipService(
            self._table,
            ready=self._ready,
            limits=self._limits,
            pool=self._pool,
            width=self._threads,
            metrics=self._metrics,
            extensions=self.extensions,
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
        if self._uds is not None and self._uds_inode is not None:
            if _inode(self._uds) == self._uds_inode:  # not a successor's
                self._uds.unlink(missing_ok=True)
            self._uds_inode = None
        services, self._services = self._services, []
        await asyncio.gather(*(service.drain(drain_s) for service in services))
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        self.extensions.close()

    async def _listen(self, handler: Handler) -> None:
        loop = asyncio.get_running_loop()
        http = HttpService(handler, self._limits, self._admit)
        self._services.append(http)
        if self._uds is not None:
            local = http
            if self._admit is not None:  # nothing that one side has learned is known to the other
                local = HttpService(handler, self._limits)
                self._services.append(local)
            listener = await loop.create_unix_server(
                local.connection, sock=self._unix_socket(self._uds), backlog=_BACKLOG
            )
            self._listeners.append(listener)
            self._endpoint = f"unix:{self._uds}"
        if self._host is not None:
            try:
                listener = await loop.create_server(
                    http.connection,
                    self._host,
                    self._port,
                    backlog=_BACKLOG,
                    ssl=self._tls,
                    ssl_handshake_timeout=self._limits.head_timeout_s if self._tls else None,
                )
            except OSError as error:
                msg = f"can't listen on {self._host}:{self._port}: {error.strerror or error}"
                if error.errno == errno.EADDRINUSE:
                    cure = "choose another port, or 0 for a free one"
                    raise ConflictError(msg, cure=cure) from error
                raise ConfigurationError(msg, cure="choose an address and port of ours") from error
            self._listeners.append(listener)
            address, port, *_ = listener.sockets[0].getsockname()
            scheme = "http" if self._tls is None else "https"
            shown = f"[{address}]" if ":" in address else address
            self._endpoint = f"{scheme}://{shown}:{port}"

    def _unix_socket(self, path: Path) -> socket.socket:
        """A bound socket with its permissions set before anybody can connect."""
        if not hasattr(socket, "AF_UNIX"):
            msg = "this system has no Unix sockets"
            raise ConfigurationError(msg, cure="listen on 127.0.0.1")
        if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
            msg = f"the socket's path is over {_MAX_SOCKET_PATH} bytes: {path}"
            raise ConfigurationError(msg, cure="choose a shorter one")
        remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(path))
            path.chmod(self._uds_mode)
        except OSError as error:
            listener.close()
            msg = f"can't listen on {path}: {error.strerror or error}"
            raise ConfigurationError(msg, cure="choose a folder that exists and is ours") from error
        self._uds_inode = _inode(path)
        listener.setblocking(False)
        return listener


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except OSError:
        return None


def remove_stale(path: Path) -> None:
    """Remove the socket that a dead process left; one of a living process or a file stays."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        msg = f"{path} is there and is no socket"
        raise ConflictError(msg, cure="choose another path", retryable=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            msg = f"can't tell whether the socket {path} is in use: {error.strerror or error}"
            raise ConflictError(msg, cure="remove it if no runtime is running") from error
    msg = f"another process serves on {path}"
    raise ConflictError(msg, cure="stop it, or choose another path")
