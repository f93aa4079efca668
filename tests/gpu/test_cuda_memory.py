"""CUDA shared memory of another process, through a server, on a real GPU."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serving import served, table_of
from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_runtime.engines.base import LoadedModel
    from edgefleet_runtime.engines.cuda import LoadedCuda

SIZE = 1 << 16
X = np.arange(8, dtype=np.float32).reshape(2, 4)


class Owner:
    """The process that owns the memory."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._in = cast("IO[str]", process.stdin)
        self._out = cast("IO[str]", process.stdout)
        self.handle = base64.b64decode(self._out.readline())

    def put(self, offset: int, data: bytes) -> None:
        assert self._ask(f"put {offset} {base64.b64encode(data).decode()}") == "ok"

    def get(self, offset: int, size: int) -> bytes:
        return base64.b64decode(self._ask(f"get {offset} {size}"))

    def _ask(self, line: str) -> str:
        self._in.write(line + "\n")
        self._in.flush()
        return self._out.readline().strip()


@pytest.fixture
def owner(cuda: LoadedCuda) -> Iterator[Owner]:
    assert cuda.device_count() > 0
    command = [sys.executable, str(Path(__file__).parent / "owner.py"), str(SIZE)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Owner(process)
        cast("IO[str]", process.stdin).close()


def test_memory_of_another_process_is_opened_read_written_and_let_go(
    cuda: LoadedCuda, owner: Owner
) -> None:
    owner.put(100, b"hello")
    pointer = cuda.open(0, owner.handle)
    assert cuda.size_of(0, pointer) >= SIZE
    seen = bytearray(5)
    cuda.to_host(0, pointer + 100, seen)
    assert seen == b"hello"
    cuda.to_device(0, pointer + 200, b"world")
    cuda.copy(0, pointer + 300, pointer + 200, 5)
    assert owner.get(300, 5) == b"world"
    cuda.close(0, pointer)


def test_what_is_no_handle_is_refused_and_the_gpu_goes_on(cuda: LoadedCuda, owner: Owner) -> None:
    with pytest.raises(InvalidInputError):
        cuda.open(0, b"\xff" * 64)
    cuda.close(0, cuda.open(0, owner.handle))


def test_a_model_runs_on_shared_memory_without_leaving_the_gpu(
    on_cuda: LoadedModel, owner: Owner
) -> None:
    owner.put(0, X.tobytes())
    with (
        serving_grpc(table_of(served(on_cuda))) as (_, address),
        client.InferenceServerClient(address) as server,
    ):
        assert "cuda_shared_memory" in server.get_server_metadata().extensions
        with pytest.raises(InferenceServerException, match="not inside"):
            server.register_cuda_shared_memory("g", base64.b64encode(owner.handle), 0, 1 << 40)
        server.register_cuda_shared_memory("g", base64.b64encode(owner.handle), 0, SIZE)
        given = client.InferInput("x", [2, 4], "FP32")
        given.set_shared_memory("g", X.nbytes)
        wanted = client.InferRequestedOutput("y")
        wanted.set_shared_memory("g", 16, offset=1024)
        server.infer("m", [given], outputs=[wanted])
        seen: Any = np.frombuffer(owner.get(1024, 16), np.float32).reshape(2, 2)
        np.testing.assert_allclose(seen, on_cuda.infer({"x": X})["y"], rtol=1e-3, atol=1e-3)
        server.unregister_cuda_shared_memory("g")
