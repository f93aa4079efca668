"""The servers that are compared, each its own process: ``servers.py KIND MODEL NAME [UDS]``.

``null``   answers a constant: what HTTP alone costs on this event loop.
``floor``  the least that serves a model: one run for all that queued while the last one ran. It
           trusts its clients, has no limits, no other models, no other formats and no counters.
``ours``   edgefleet-runtime's server.

Prints its port when clients can connect; ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

import httptools

from edgefleet_runtime.serve.loop import run

THREADS = 1  # for one run of the floor's model; more make tiny models slower


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


def prepare_floor(model: Path, name: str) -> None:
    """Open the floor's model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS if model.stat().st_size < 1 << 18 else 0
    Floor.session = onnxruntime.InferenceSession(
        str(model), options, providers=["CPUExecutionProvider"]
    )
    given = Floor.session.get_inputs()[0]
    Floor.model, Floor.input_name, Floor.queue = name, given.name, []
    Floor.batches = not isinstance(given.shape[0], int)
    Floor.input_shape = tuple(n if isinstance(n, int) else -1 for n in given.shape)


async def serve_ours(model: Path, name: str, uds: Path | None) -> tuple[object, int]:
    """Start the runtime's server; returns it and its port."""
    from edgefleet_runtime.engines.base import EngineOptions
    from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
    from edgefleet_runtime.serve.server import Server
    from edgefleet_runtime.serve.table import ModelTable, ServedModel

    opened = OnnxRuntimeEngine().load(model, EngineOptions())
    table = ModelTable()
    table.swap({name: ServedModel(opened, name=name, version="1", bundle="", variant="")})
    server = Server(table, uds=uds)
    await server.start()
    return server, int(server.endpoint.rpartition(":")[2])


async def main(kind: str, model: Path, name: str, uds: Path | None) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    if kind == "ours":
        listening, port = await serve_ours(model, name, uds)
    else:
        if kind == "floor":
            prepare_floor(model, name)
        protocol = Floor if kind == "floor" else Null
        listeners = [await loop.create_server(protocol, "127.0.0.1", 0)]
        port = listeners[0].sockets[0].getsockname()[1]
        if uds is not None:
            listeners.append(await loop.create_unix_server(protocol, str(uds)))
        listening = listeners
    print(port, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    del listening  # until now: a server that nobody holds is closed


if __name__ == "__main__":
    run(
        main(
            sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]) if sys.argv[4:] else None
        )
    )
