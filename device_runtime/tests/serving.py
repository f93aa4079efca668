"""A server in a thread of its own and plain clients for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from edgefleet.errors import InferenceError
from edgefleet.protocol.bundle import Interface, TensorSpec
from edgefleet_runtime.engines.base import LoadedModel
from edgefleet_runtime.serve.loop import run
from edgefleet_runtime.serve.server import Server
from edgefleet_runtime.serve.table import ModelTable, ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WAIT_S = 60.0  # for what happens at once unless something is broken


LIVE = b"GET /v2/health/live HTTP/1.1\r\n\r\n"


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeModel(LoadedModel):
    """``x`` FP32[-1] to ``y`` = x + addend; runs ``during`` first, on the thread that runs it."""

    engine = "fake 1.0"
    providers = ("FakeProvider",)

    def __init__(self, addend: float = 0, during: Callable[[], None] = lambda: None) -> None:
        spec = TensorSpec(name="x", datatype="FP32", shape=(-1,))
        other = TensorSpec(name="y", datatype="FP32", shape=(-1,))
        self.interface = Interface(inputs=(spec,), outputs=(other,))
        self.addend = addend
        self.during = during
        self.closed = False

    def infer(
        self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        if self.closed:
            raise InferenceError("used after close")
        self.during()
        return {"y": inputs["x"] + np.float32(self.addend)}

    def close(self) -> None:
        self.closed = True


def served(model: LoadedModel, name: str = "m", version: str = "1") -> ServedModel:
    return ServedModel(model, name=name, version=version, bundle="sha256:0", variant="fp32")


def table_of(*models: ServedModel) -> ModelTable:
    table = ModelTable()
    table.swap({model.name: model for model in models})
    return table


class Running:
    """A server that runs in a thread; ``call`` runs a coroutine function on its loop."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.loop = loop

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.server.endpoint.partition("://")[2].rpartition(":")
        return host, int(port)

    def stop(self, drain_s: float = WAIT_S) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(drain_s), self.loop).result(WAIT_S)

    def connect(self) -> socket.socket:
        client = socket.create_connection(self.address, WAIT_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        client = http.client.HTTPConnection(*self.address, timeout=WAIT_S)
        try:
            client.request(method, path, body, dict(headers or {}))
            answer = client.getresponse()
            return Reply(answer.status, answer.headers, answer.read())
        finally:
            client.close()

    def infer(self, *x: float, name: str = "m", **more: Any) -> Reply:
        tensor = {"name": "x", "shape": [len(x)], "datatype": "FP32", "data": x}
        body = json.dumps({"inputs": [tensor], **more})
        return self.ask("POST", f"/v2/models/{name}/infer", body)


@contextmanager
def serving(table: ModelTable, *args: Any, **options: Any) -> Iterator[Running]:
    """Serves the table until the block ends."""
    started: list[Running] = []
    up = threading.Event()
    down: asyncio.Event | None = None

    async def main() -> None:
        nonlocal down
        down = asyncio.Event()
        server = Server(table, *args, **options)
        await server.start()
        started.append(Running(server, asyncio.get_running_loop()))
        up.set()
        try:
            await down.wait()
        finally:
            await server.stop(WAIT_S)

    errors: list[BaseException] = []

    def body() -> None:
        try:
            run(main())
        except BaseException as error:  # noqa: BLE001 - raised where the test is
            errors.append(error)
        finally:
            up.set()

    thread = threading.Thread(target=body)
    thread.start()
    up.wait(WAIT_S)
    try:
        if errors:
            raise errors[0]
        yield started[0]
    finally:
        if down is not None and started:
            started[0].loop.call_soon_threadsafe(down.set)
        thread.join(WAIT_S)
    assert not thread.is_alive()
    if errors:
        raise errors[0]


def read_replies(client: socket.socket, count: int = 1) -> list[Reply]:
    """So many answers off a raw connection, all that are still to come or the last ones wanted."""
    with client.makefile("rb") as stream:
        return [_read_reply(stream) for _ in range(count)]


def _read_reply(stream: BinaryIO) -> Reply:
    line = stream.readline()
    if not line:
        raise EOFError
    headers = http.client.parse_headers(stream)
    return Reply(int(line.split()[1]), headers, stream.read(int(headers["Content-Length"])))


def read_all(client: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    while part := client.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def infer_bytes(x: float, *extra: str, size: int = 1) -> bytes:
    tensor = {"name": "x", "shape": [size], "datatype": "FP32", "data": [x] * size}
    body = json.dumps({"id": str(x), "inputs": [tensor]})
    head = [f"POST /v2/models/m/infer HTTP/1.1\r\nContent-Length: {len(body)}", *extra]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


class Gate:
    """Holds a model's runs until the test opens it."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def __call__(self) -> None:
        self.entered.release()
        assert self.open.wait(WAIT_S)

    def wait_for_run(self) -> None:
        assert self.entered.acquire(timeout=WAIT_S)
