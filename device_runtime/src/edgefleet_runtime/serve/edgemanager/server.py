"""The agent's API on a Unix socket, on the event loop that it is started on."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

import grpc.aio

from edgefleet.errors import ConfigurationError
from edgefleet_runtime.serve.edgemanager.service import AgentService
from edgefleet_runtime.serve.messages import Limits
from edgefleet_runtime.serve.sockets import SocketFile

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_runtime.serve.edgemanager.captures import Captures
    from edgefleet_runtime.serve.edgemanager.models import AgentModels
    from edgefleet_runtime.serve.table import ModelTable

_log = logging.getLogger(__name__)


class EdgeManagerServer:
    """Serves the models of a table to clients of SageMaker Edge Manager's agent.

    Args:
        table: the models.
        uds: path of the Unix socket.
        models: decides what is loaded.
        captures: takes captures in, and is closed with the server; None to refuse them.
        uds_mode: permissions of the socket.
        limits: what is accepted before calls are refused; a message counts as a body.
    """

    def __init__(
        self,
        table: ModelTable,
        uds: Path,
        *,
        models: AgentModels,
        captures: Captures | None = None,
        uds_mode: int = 0o660,
        limits: Limits | None = None,
    ) -> None:
        self._table = table
        self._socket = SocketFile(uds, uds_mode)
        self._models = models
        self._captures = captures
        self._limits = limits or Limits()
        self._server: grpc.aio.Server | None = None
        self._service: AgentService | None = None

    @property
    def endpoint(self) -> str:
        """Where clients reach it: ``unix:PATH``."""
        return f"unix:{self._socket.path}"

    async def start(self) -> None:
        """Listen; returns when clients can connect.

        Raises:
            ConflictError: the socket is in use by a process that lives.
            ConfigurationError: the path can't be listened on.
        """
        limits = self._limits
        self._service = AgentService(
            self._table, models=self._models, captures=self._captures, limits=limits
        )
        server = grpc.aio.server(
            maximum_concurrent_rpcs=limits.max_connections,
            options=(
                ("grpc.max_receive_message_length", limits.max_body_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.max_head_bytes),
                ("grpc.max_connection_idle_ms", round(limits.idle_timeout_s * 1000)),
                ("grpc.server_handshake_timeout_ms", round(limits.head_timeout_s * 1000)),
            ),
        )
        server.add_generic_rpc_handlers((self._service.handlers(),))
        self._server = server
        try:
            self._socket.listen_by(partial(_bind, server))
            await server.start()
        except BaseException:
            await self.stop(0.0)
            raise
        _log.info("serving Edge Manager's API on %s", self.endpoint)

    async def stop(self, drain_s: float = 10.0) -> None:
        """Stop listening, finish what has begun within ``drain_s`` and cut the rest."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + drain_s
        server, self._server = self._server, None
        if server is not None:
            await server.stop(drain_s)
        self._socket.remove()
        if self._service is not None:
            self._service.close()
        if self._captures is not None:
            try:
                async with asyncio.timeout(max(ends - loop.time(), 0.1)):
                    await asyncio.to_thread(self._captures.close)
            except TimeoutError:
                _log.warning("captures were left when the server stopped")


def _bind(server: grpc.aio.Server, address: str) -> None:
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        raise ConfigurationError(
            f"can't listen on {address}: {error}", cure="choose a folder that exists and is ours"
        ) from error
