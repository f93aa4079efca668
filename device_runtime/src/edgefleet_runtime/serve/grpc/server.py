"""A gRPC server in front of the same models: on an address, on a Unix socket, or on both.

It runs on the event loop it is started on, beside the REST server, whose extensions it shares.
An address and a Unix socket are served apart: who may come in, and what callers may do, differs.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from functools import partial
from typing import TYPE_CHECKING

import grpc.aio

from edgefleet.errors import ConfigurationError, ConflictError
from edgefleet_runtime.serve.access import Access, check_access, is_loopback, warn_of_clear_text
from edgefleet_runtime.serve.grpc.access import (
    TokenInterceptor,
    server_credentials,
    token_interceptors,
)
from edgefleet_runtime.serve.grpc.service import GrpcService
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.sockets import SocketFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet_runtime.serve.extensions.service import Extensions

_log = logging.getLogger(__name__)


class GrpcServer:
    """Serves the models of a table over gRPC.

    Args:
        extensions: of the REST server beside it, or an `Extensions` of its own; with the table.
        host: address to listen on; None for no TCP at all.
        port: 0 for one that is free.
        uds: path of a Unix socket to listen on as well.
        uds_mode: permissions of that socket.
        limits: what the address and the socket each accept before calls are refused; a message
            counts as a body.
        ready: whether ``ServerReady`` says yes; without it, whether the table has a model.
        access: who may use the address; the Unix socket has its permissions instead.
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
        access: Access | None = None,
    ) -> None:
        if host is None and uds is None:
            raise ConfigurationError("a server needs an address or a Unix socket to listen on")
        access = access or Access()
        if host is not None:
            check_access(host, access)
            warn_of_clear_text(host, access)
        self._interceptors = token_interceptors(access)
        self._credentials = server_credentials(access)
        self._extensions = extensions
        self._host = host
        self._port = port
        self._socket = None if uds is None else SocketFile(uds, uds_mode)
        self._limits = limits or Limits()
        self._ready = ready or (lambda: any(True for _ in extensions.table))
        self._servers: list[grpc.aio.Server] = []
        self._open = False
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
        self._extensions.enter()
        self._open = True
        try:
            await self._listen()
        except BaseException:
            await self.stop(0.0)
            raise
        _log.info("serving gRPC on %s", self._endpoint)

    async def stop(self, drain_s: float = 10.0) -> None:
        """Stop listening, finish what has begun within ``drain_s`` and cut the rest."""
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop(drain_s) for server in servers))
        if self._socket is not None:
            self._socket.remove()
        if self._open:
            self._open = False
            self._extensions.leave()

    async def _listen(self) -> None:
        if self._socket is not None:
            server = self._made(self._extensions)
            self._socket.listen_by(partial(_bind, server))
            self._endpoint = f"unix:{self._socket.path}"
            await server.start()
        if self._host is not None:
            local = is_loopback(self._host)
            extensions = self._extensions if local else self._extensions.afar
            server = self._made(extensions, self._interceptors)
            host = f"[{self._host}]" if ":" in self._host else self._host
            port = _bind(server, f"{host}:{self._port}", self._credentials)
            self._endpoint = f"{host}:{port}"
            await server.start()

    def _made(
        self,
        extensions: Extensions,
        interceptors: tuple[TokenInterceptor, ...] = (),
    ) -> grpc.aio.Server:
        limits = self._limits
        service = GrpcService(extensions, ready=self._ready, limits=limits)
        server = grpc.aio.server(
            interceptors=interceptors,
            maximum_concurrent_rpcs=limits.max_connections,
            options=(
                ("grpc.max_receive_message_length", limits.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.max_head_bytes),
                # An older grpcio than this is written with passes over what it doesn't know.
                ("grpc.max_allowed_incoming_connections", limits.max_connections),
                ("grpc.max_connection_idle_ms", round(limits.idle_timeout_s * 1000)),
                ("grpc.server_handshake_timeout_ms", round(limits.head_timeout_s * 1000)),
                ("grpc.so_reuseport", 0),  # or a second server on the port would go unnoticed
            ),
        )
        server.add_generic_rpc_handlers((service.handlers(),))
        self._servers.append(server)
        return server


def _bind(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None
) -> int:
    try:
        port: int = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
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
