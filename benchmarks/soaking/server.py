"""The server that is soaked, a process of its own so that its memory is nobody else's.

    python benchmarks/soaking/server.py MODEL.onnx TIMEOUT_S

Prints ``host port`` of REST and of gRPC, serves ``m``, ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from msgspec.structs import replace

from edgefleet_runtime.allocator import share_heap
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.grpc.server import GrpcServer
from edgefleet_runtime.serve.loop import run
from edgefleet_runtime.serve.messages import MIB, Limits
from edgefleet_runtime.serve.server import Server
from edgefleet_runtime.serve.table import ModelTable, ServedModel

PATIENCE_S = 600.0  # with clients that wait for a core of a busy machine


async def serve(path: Path, timeout_s: float) -> None:
    """Serve the model until standard input ends."""
    limits = Limits(
        max_body_bytes=MIB,
        head_timeout_s=timeout_s,
        body_timeout_s=timeout_s,
        idle_timeout_s=PATIENCE_S,
        write_timeout_s=timeout_s,
        linger_s=timeout_s / 2,
    )
    model = OnnxRuntimeEngine().load(path, EngineOptions(threads=1))
    table = ModelTable()
    table.swap({"m": ServedModel(model, name="m", version="1", bundle="", variant="")})
    server = Server(table, limits=limits)
    await server.start()
    # None of the bad callers is slow: their connections begin at once, or not as HTTP/2.
    patient = replace(limits, head_timeout_s=PATIENCE_S)
    beside = GrpcServer(server.extensions, limits=patient)
    await beside.start()
    endpoints = (server.endpoint.removeprefix("http://"), beside.endpoint)
    print(*(part for endpoint in endpoints for part in endpoint.split(":")), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    await beside.stop(timeout_s)
    await server.stop(timeout_s)


if __name__ == "__main__":
    share_heap()  # as the runtime's command line does
    run(serve(Path(sys.argv[1]), float(sys.argv[2])))
