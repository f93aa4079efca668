"""A gRPC server in front of the same models: on loopback, on a Unix socket, or on both.

It runs on the event loop it is started on, beside the REST server, whose extensions it shares.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING

import grpc.aio

from edgefleet.errors import ConfigurationError, ConflictError
from edgefleet_runtime.serve.access import is_loopback
from edgefleet_runtime.serve.grpc.service import GrpcService
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.server import remove_stale

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.serve.extensions.service import Extensions

_log = logging.getLogger(__name__)


class GrpcServer:
    """Serves the models of a table over gRPC.

    Args:
        extensions: of the REST server beside it, or an `Extensions` of its own; with the table.
        host: a loopback address to listen on; None for no TCP at all.
        port: 0 for one that is free.
        uds: path of a Unix socket to listen on as well.
        uds_mode: permissions of that socket.
        limits: what is accepted before calls are refused; a message counts as a body.
        ready: whether ``ServerReady`` says yes; without it, whether the table has a model.
    """

    def __init__(
        self,
        extensions: Extensions,
        host: str | None = "127.0.0.1",
        port: int = 0,
        *,
        uds: Path | None = None,
        uds_mode: int = 0o660,
        limits: Limits | None = None,
        ready: Callable[[], bool] | None = None,
    ) -> None:
        if host is None and uds is None:
            raise ConfigurationError("a server needs an address or a Unix socket to listen on")
        if host is not None and not is_loopback(host):
            raise ConfigurationError(
                f"{host} can be reached from other machines, and gRPC tells no callers apart here",
                cure="listen on 127.0.0.1 or a Unix socket; other machines are served by --http",
            )
        self._extensions = extensions
        self._host = host
        self._port = port
        self._uds = uds
        self._uds_mode = uds_mode
        self._limits = limits or Limits()
        self._ready = ready or (lambda: any(True for _ in extensions.table))
        self._open = False
        self._server: grpc.aio.Server | None = None
        self._uds_inode: int | None = None
        self._endpoint = ""

    @property
    def endpoint(self) -> str:
        """Where clients reach it: ``HOST:PORT``, or ``unix:PATH`` without TCP; empty at first."""
        return self._endpoint

    async def start(self) -> None:
        """Listen; returns when clients can connect.

        Raises:
            ConflictError: the port or the socket is in use.
            ConfigurationError: the address or the socket's path can't be listened on.
        """
        limits = self._limits
        self._extensions.lanes.open()
        self._open = True
        service = GrpcService(self._extensions, ready=self._ready, limits=limits)
        server = grpc.aio.server(
            maximum_concurrent_rpcs=limits.max_connections,
            options=(
                ("grpc.max_receive_message_length", limits.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.max_head_bytes),
                ("grpc.max_connection_idle_ms", round(limits.idle_timeout_s * 1000)),
                ("grpc.so_reuseport", 0),  # or a second server on the port would go unnoticed
            ),
        )
        server.add_generic_rpc_handlers((service.handlers(),))
        self._server = server
        try:
            self._listen(server)
            await server.start()
        except BaseException:
            await self.stop(0.0)
            raise
        _log.info("serving gRPC on %s", self._endpoint)

    async def stop(self, drain_s: float = 10.0) -> None:
        """Stop listening, finish what has begun within ``drain_s`` and cut the rest."""
        if self._server is not None:
            await self._server.stop(drain_s)
            self._server = None
        if self._uds is not None and self._uds_inode is not None:
            with contextlib.suppress(OSError):
                if self._uds.lstat().st_ino == self._uds_inode:  # not a successor's
                    self._uds.unlink()
            self._uds_inode = None
        if self._open:
            self._open = False
            self._extensions.lanes.close()

    def _listen(self, server: grpc.aio.Server) -> None:
        if self._uds is not None:
            remove_stale(self._uds)  # grpc would remove a living server's socket as well
            # The mode must hold before anybody can connect, and grpc has no option for it.
            mask = os.umask(0o777 & ~self._uds_mode)
            try:
                self._bind(server, f"unix:{self._uds}")
            finally:
                os.umask(mask)
            self._uds_inode = self._uds.lstat().st_ino
            self._endpoint = f"unix:{self._uds}"
        if self._host is not None:
            host = f"[{self._host}]" if ":" in self._host else self._host
            self._endpoint = f"{host}:{self._bind(server, f'{host}:{self._port}')}"

    @staticmethod
    def _bind(server: grpc.aio.Server, address: str) -> int:
        try:
            port: int = server.add_insecure_port(address)
        except RuntimeError as error:
            if _is_in_use(address):
                raise ConflictError(
                    f"can't listen on {address}: it is in use",
                    cure="choose another port, or 0 for a free one",
                ) from error
            raise ConfigurationError(
                f"can't listen on {address}: {error}", cure="choose an address and port of ours"
            ) from error
        return port


def _is_in_use(address: str) -> bool:
    """Whether an address can't be had because somebody has it; grpc only logs why."""
    host, _, port = address.rpartition(":")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except (OSError, ValueError) as error:
        return getattr(error, "errno", None) == errno.EADDRINUSE
    return False
