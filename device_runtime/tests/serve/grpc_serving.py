"""REST and gRPC servers over one table, in a thread of their own."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from device_runtime.tests.serving import WAIT_S, Running, serving
from edgefleet_runtime.serve.grpc.server import GrpcServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_runtime.serve.messages import Limits
    from edgefleet_runtime.serve.queueing import BatchLimits
    from edgefleet_runtime.serve.table import ModelTable


@contextmanager
def serving_grpc(
    table: ModelTable,
    *,
    control: Any = None,
    limits: Limits | None = None,
    threads: int = 0,
    batching: BatchLimits | None = None,
    rest: Any = None,
    **options: Any,
) -> Iterator[tuple[Running, str]]:
    """Serves until the block ends; gives the REST server and the gRPC server's address.

    ``rest`` are further options of the REST server, whose extensions both share.
    """

    async def start() -> GrpcServer:
        server = GrpcServer(running.server.extensions, limits=limits, **options)
        await server.start()
        return server

    shared = {"control": control, "limits": limits, "threads": threads, "batching": batching}
    with serving(table, **shared, **(rest or {})) as running:
        server = asyncio.run_coroutine_threadsafe(start(), running.loop).result(WAIT_S)
        try:
            yield running, server.endpoint
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(5.0), running.loop).result(WAIT_S)
