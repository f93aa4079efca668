"""The servers that are compared, each its own process: ``servers.py KIND MODEL NAME [UDS]``.

``null``        answers a constant: what HTTP alone costs on this event loop.
``floor``       the least that serves a model over REST: one run for all that queued while the last
                one ran. It trusts its clients, has no limits, no other models, no other formats and
                no counters.
``floor+grpc``  the least that serves it over gRPC: a bare handler of grpc.aio, and nothing else.
``ours``        edgefleet-runtime's server.
``ours+grpc``   the same with its gRPC server beside it.

Prints its port for REST, and for gRPC where it has one (the floor has one of both), when clients
can connect; ends when its standard input does. Imports are of what a kind needs: memory and start
are measured.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import httptools
import uvloop

TINY = {"mlp"}  # models that more than one thread makes slower


class Null(asyncio.Protocol):
    """Reads requests, answers a constant."""

    reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.transport.write(self.reply)


class Floor(Null):
    """Serves one model with one binary input and one binary output."""

    session: Any
    model: str
    input_name: str
    input_shape: tuple[int, ...]
    batches: bool
    queue: list[tuple[Floor, Any]]

    def on_message_begin(self) -> None:
        self.header_length = 0
        self.parts: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"inference-header-content-length":
            self.header_length = int(value)

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        import numpy as np

        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        array = np.frombuffer(body, np.float32, offset=self.header_length)
        queue = self.queue
        queue.append((self, array.reshape(self.input_shape)))
        if len(queue) == 1:
            asyncio.get_running_loop().call_soon(self.flush)

    @classmethod
    def flush(cls) -> None:
        """Answer everything that is queued."""
        import numpy as np

        queue, cls.queue = cls.queue, []
        if cls.batches and len(queue) > 1:
            joined = np.concatenate([array for _, array in queue])
            (outputs,) = cls.session.run(None, {cls.input_name: joined})
            for index, (connection, _) in enumerate(queue):
                connection.answer(outputs[index : index + 1])
            return
        for connection, array in queue:
            connection.answer(cls.session.run(None, {cls.input_name: array})[0])

    def answer(self, output: Any) -> None:  # noqa: ANN401 - an array of onnxruntime's
        data = output.tobytes()
        shape = ",".join(map(str, output.shape))
        head = (
            f'{{"model_name":"{self.model}","outputs":[{{"name":"y","datatype":"FP32",'
            f'"shape":[{shape}],"parameters":{{"binary_data_size":{len(data)}}}}}]}}'
        ).encode()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"
            b"Inference-Header-Content-Length: %d\r\nContent-Length: %d\r\n\r\n%b%b"
            % (len(head), len(head) + len(data), head, data)
        )


def open_floor(model: Path, name: str) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """The floor's model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1 if name in TINY else 0
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def prepare_floor(model: Path, name: str) -> None:
    """Open the model that the floor serves over REST."""
    Floor.session = open_floor(model, name)
    given = Floor.session.get_inputs()[0]
    Floor.model, Floor.input_name, Floor.queue = name, given.name, []
    Floor.batches = not isinstance(given.shape[0], int)
    Floor.input_shape = tuple(n if isinstance(n, int) else -1 for n in given.shape)


async def serve_calls(model: Path, name: str) -> tuple[Any, int]:
    """Start the floor of gRPC; returns it and its port."""
    import grpc.aio
    import numpy as np

    from edgefleet_runtime.serve.grpc import inference_pb2 as pb

    session = open_floor(model, name)
    (given,) = session.get_inputs()
    shape = tuple(n if isinstance(n, int) else -1 for n in given.shape)

    async def infer(request: pb.ModelInferRequest, _: object) -> pb.ModelInferResponse:
        array = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(shape)
        (output,) = session.run(None, {given.name: array})
        answer = pb.ModelInferResponse(model_name=name, raw_output_contents=[output.tobytes()])
        answer.outputs.add(name="y", datatype="FP32", shape=output.shape)
        return answer

    method = grpc.unary_unary_rpc_method_handler(
        infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
    )
    service = "inference.GRPCInferenceService"
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"ModelInfer": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


async def serve_ours(
    model: Path, name: str, uds: Path | None, stack: AsyncExitStack, *, calls: bool
) -> tuple[int, ...]:
    """Start the runtime's servers; returns their ports."""
    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
    from edgefleet_runtime.serve.server import Server
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

    opened = OnnxRuntimeEngine().load(model, EngineOptions())
    table = ModelTable()
    table.swap({name: ServedModel(opened, name=name, version="1", bundle="", variant="")})
    server = Server(table, uds=uds)
    await server.start()
    stack.push_async_callback(server.stop, 0.0)
    endpoints = [server.endpoint]
    if calls:
        from edgefleet_runtime.serve.grpc.server import GrpcServer

        beside = GrpcServer(server.extensions)
        await beside.start()
        stack.push_async_callback(beside.stop, 0.0)
        endpoints.append(beside.endpoint)
    return tuple(int(endpoint.rpartition(":")[2]) for endpoint in endpoints)


async def main(kind: str, model: Path, name: str, uds: Path | None) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        ports: tuple[int, ...]
        if kind.startswith("ours"):
            ports = await serve_ours(model, name, uds, stack, calls=kind == "ours+grpc")
        elif kind == "floor+grpc":
            server, port = await serve_calls(model, name)
            stack.push_async_callback(server.stop, None)
            ports = (port,)
        else:
            if kind == "floor":
                prepare_floor(model, name)
            protocol = Floor if kind == "floor" else Null
            listener = await loop.create_server(protocol, "127.0.0.1", 0)
            stack.callback(listener.close)
            if uds is not None:
                stack.callback((await loop.create_unix_server(protocol, str(uds))).close)
            ports = (listener.sockets[0].getsockname()[1],)
        print(*ports, flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    given = sys.argv[1:]
    uvloop.run(main(given[0], Path(given[1]), given[2], Path(given[3]) if given[3:] else None))
