"""CUDA shared memory, over a stand-in for NVIDIA's libraries: who gets in, and what stays where."""

from __future__ import annotations

import base64
import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from device_runtime.tests import onnx_models
from device_runtime.tests.cuda_simulator import SimulatedCuda, host_as_gpu
from device_runtime.tests.serve import triton
from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serve.triton import shared_object
from device_runtime.tests.serving import FakeModel, served, serving, table_of
from edgefleet.errors import (
    AlreadyExistsError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
)
from edgefleet_runtime.serve.access import Access
from edgefleet_runtime.serve.extensions.cuda_memory import CudaRegion, CudaRegions
from edgefleet_runtime.serve.extensions.memory import SharedMemory
from edgefleet_runtime.serve.extensions.shared_memory import Region, SystemRegions
from edgefleet_runtime.serve.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not SystemRegions.supported(), reason="no /dev/shm here")

SIZE = 4096
OUT = 1024  # where the output goes in the region


@pytest.fixture
def cuda() -> SimulatedCuda:
    return SimulatedCuda(devices=2)


@pytest.fixture
def regions(cuda: SimulatedCuda) -> CudaRegions:
    return CudaRegions(max_bytes=1000, find=lambda: cuda)


def region(handle: bytes, name: str = "g", byte_size: int = SIZE, device: int = 0) -> CudaRegion:
    return CudaRegion(name=name, handle=handle, device_id=device, byte_size=byte_size)


class Clients:
    """One of Triton's clients over a server with three models: on GPU 0, on GPU 1 and on none."""

    def __init__(self, library: Any, client: Any, server: Server) -> None:
        self.library = library
        self.client = client
        self.server = server

    def register(self, name: str, handle: bytes, device: int = 0, size: int = SIZE) -> None:
        # As tritonclient.utils.cuda_shared_memory.get_raw_handle gives it.
        self.client.register_cuda_shared_memory(name, base64.b64encode(handle), device, size)

    def infer(self, model: str, *, rows: int = 2, offset: int = 0, size: int | None = None) -> Any:
        given = self.library.InferInput("x", [rows, 4], "FP32")
        given.set_shared_memory("g", rows * 16 if size is None else size, offset=offset)
        wanted = self.library.InferRequestedOutput("y")
        wanted.set_shared_memory("g", 512, offset=OUT)
        return self.client.infer(model, [given], outputs=[wanted])

    @property
    def status(self) -> list[tuple[str, int, int]]:
        told = self.client.get_cuda_shared_memory_status()
        if isinstance(told, list):
            return [(r["name"], r["device_id"], r["byte_size"]) for r in told]
        return [(r.name, r.device_id, r.byte_size) for r in told.regions.values()]


@pytest.fixture(params=["http", "grpc"])
def clients(
    request: pytest.FixtureRequest, tmp_path: Path, cuda: SimulatedCuda
) -> Iterator[Clients]:
    path = onnx_models.mlp(tmp_path / "m.onnx")
    table = table_of(
        served(host_as_gpu(path), "near"),
        served(host_as_gpu(path, device=1), "far"),
        served(triton.table(tmp_path).get("mlp").model, "host"),
    )
    with serving_grpc(table, rest={"cuda": lambda: cuda}) as (running, address):
        if request.param == "grpc":
            with grpc_client.InferenceServerClient(address) as client:
                yield Clients(grpc_client, client, running.server)
        else:
            host = "{}:{}".format(*running.address)
            with http_client.InferenceServerClient(host) as client:
                yield Clients(http_client, client, running.server)


def lay(memory: Any, offset: int = 0) -> None:
    memory[offset : offset + triton.X.nbytes] = triton.X.reshape(-1).view(np.uint8)


def answer(memory: Any) -> Any:
    return memory[OUT : OUT + triton.Y.nbytes].view(np.float32).reshape(2, 2)


def test_tensors_stay_on_the_gpu_that_runs_the_model(clients: Clients, cuda: SimulatedCuda) -> None:
    handle, memory = cuda.share(SIZE)
    lay(memory)
    clients.register("g", handle)
    assert clients.status == [("g", 0, SIZE)]
    result = clients.infer("near")
    np.testing.assert_array_equal(answer(memory), triton.Y)
    assert cuda.copies == ["copy"], "of the output, within the GPU"
    assert result.get_output("y") is not None
    clients.client.unregister_cuda_shared_memory("g")
    assert clients.status == []
    gc.collect()
    assert cuda.opened == []


@pytest.mark.parametrize("model", ["host", "far"])
def test_a_model_elsewhere_gets_copies(clients: Clients, cuda: SimulatedCuda, model: str) -> None:
    handle, memory = cuda.share(SIZE)
    lay(memory)
    clients.register("g", handle)
    clients.infer(model)
    np.testing.assert_array_equal(answer(memory), triton.Y)
    assert cuda.copies == ["to_host", "to_device"]


def test_who_watches_a_model_sees_arrays_of_the_host(clients: Clients, cuda: SimulatedCuda) -> None:
    handle, memory = cuda.share(SIZE)
    lay(memory)
    clients.register("g", handle)
    seen: list[Any] = []
    near = clients.server.extensions.table.get("near")
    near.watchers = (lambda inputs, outputs, _: seen.append((inputs["x"], outputs)),)
    clients.infer("near")
    np.testing.assert_array_equal(seen[0][0], triton.X)
    np.testing.assert_array_equal(seen[0][1]["y"], triton.Y)
    assert cuda.copies == ["to_host", "to_device"]


def test_an_address_that_could_kill_a_kernel_is_copied(
    clients: Clients, cuda: SimulatedCuda
) -> None:
    handle, memory = cuda.share(SIZE)
    lay(memory, 4)
    clients.register("g", handle)
    clients.infer("near", offset=4)
    np.testing.assert_array_equal(answer(memory), triton.Y)
    assert cuda.copies == ["to_host", "copy"]


@pytest.mark.parametrize(
    "request_of,said",
    [
        ({"offset": SIZE}, "not inside region"),
        ({"size": 16}, "has 32 bytes, not 16"),
        ({"rows": 3, "size": 32}, "has 48 bytes, not 32"),
    ],
)
def test_a_tensor_lies_inside_its_region(
    clients: Clients, cuda: SimulatedCuda, request_of: Any, said: str
) -> None:
    clients.register("g", cuda.share(SIZE)[0])
    with pytest.raises(InferenceServerException, match=said):
        clients.infer("near", **request_of)
    assert cuda.copies == []


def test_a_region_of_more_bytes_than_its_memory_is_refused(
    clients: Clients, cuda: SimulatedCuda
) -> None:
    handle, _ = cuda.share(SIZE)
    with pytest.raises(InferenceServerException, match="not inside the memory of its handle"):
        clients.register("g", handle, size=SIZE + 1)
    assert cuda.opened == []
    assert clients.status == []


def test_handles_of_nobody_and_other_gpus_are_refused(
    clients: Clients, cuda: SimulatedCuda
) -> None:
    handle, _ = cuda.share(SIZE, device=1)
    for device, given in ((0, handle), (2, handle), (0, bytes(64)), (0, b"short")):
        with pytest.raises(InferenceServerException):
            clients.register("g", given, device)
    clients.register("g", handle, 1)
    assert clients.status == [("g", 1, SIZE)]


def test_system_and_cuda_regions_share_their_names(clients: Clients, cuda: SimulatedCuda) -> None:
    with shared_object(SIZE) as path:
        clients.client.register_system_shared_memory("g", f"/{path.name}", SIZE)
        with pytest.raises(InferenceServerException, match="already registered"):
            clients.register("g", cuda.share(SIZE)[0])
        clients.client.unregister_system_shared_memory("g")
        clients.register("g", cuda.share(SIZE)[0])
        with pytest.raises(InferenceServerException, match="already registered"):
            clients.client.register_system_shared_memory("g", f"/{path.name}", SIZE)
        assert clients.client.is_server_ready()


def test_the_extension_is_listed_where_there_is_a_gpu(clients: Clients) -> None:
    told = clients.client.get_server_metadata()
    names = told["extensions"] if isinstance(told, dict) else told.extensions
    assert "cuda_shared_memory" in names


def test_without_a_gpu_a_region_is_refused_as_triton_refuses_it() -> None:
    with (
        serving(table_of(served(FakeModel())), cuda=lambda: None) as running,
        http_client.InferenceServerClient("{}:{}".format(*running.address)) as client,
    ):
        assert "cuda_shared_memory" not in client.get_server_metadata()["extensions"]
        with pytest.raises(InferenceServerException, match="GPUs not supported") as refused:
            client.register_cuda_shared_memory("g", base64.b64encode(bytes(64)), 0, 64)
        assert refused.value.status() == "400"
        assert client.get_cuda_shared_memory_status() == []
        client.unregister_cuda_shared_memory()


@pytest.mark.parametrize(
    "body",
    [
        "{}",
        '{"raw_handle": "AA==", "device_id": 0, "byte_size": 1}',
        '{"raw_handle": {"b64": "*"}, "device_id": 0, "byte_size": 1}',
        '{"raw_handle": {"b64": "AA=="}, "device_id": -1, "byte_size": 1}',
        '{"raw_handle": {"b64": "AA=="}, "device_id": 0, "byte_size": 99999999999999999999}',
    ],
)
def test_what_is_no_registration_is_refused(body: str) -> None:
    cuda = SimulatedCuda()
    with serving(table_of(served(FakeModel())), cuda=lambda: cuda) as running:
        reply = running.ask("POST", "/v2/cudasharedmemory/region/g/register", body)
        assert reply.status == 400
        assert reply.json["error"]


def test_other_machines_get_no_memory_of_ours(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 32)
    token.chmod(0o600)
    asked: list[int] = []
    reachable = Server(
        table_of(served(FakeModel())),
        "0.0.0.0",
        access=Access(allow_remote=True, token_file=token),
        cuda=lambda: asked.append(1),
    )
    with pytest.raises(InvalidInputError, match="is off here"):
        reachable.extensions.afar.cuda_memory()
    assert asked == []


def test_memory_stays_open_until_the_last_tensor_in_it_is_gone(
    regions: CudaRegions, cuda: SimulatedCuda
) -> None:
    handle, _ = cuda.share(SIZE)
    regions.register(region(handle))
    tensor = regions.tensor("g", 0, 16, "FP32", [4])
    regions.unregister("g")
    assert len(cuda.opened) == 1
    assert tensor.to_host().tolist() == [0, 0, 0, 0]
    del tensor
    gc.collect()
    assert cuda.opened == []


def test_one_memory_is_registered_once(regions: CudaRegions, cuda: SimulatedCuda) -> None:
    handle, _ = cuda.share(SIZE)
    regions.register(region(handle))
    with pytest.raises(AlreadyExistsError, match="already registered"):
        regions.register(region(cuda.share(SIZE)[0]))
    with pytest.raises(AlreadyExistsError, match="is registered as 'g'"):
        regions.register(region(handle, name="h"))
    assert list(regions.status()) == ["g"]


def test_what_is_copied_has_a_limit(regions: CudaRegions, cuda: SimulatedCuda) -> None:
    regions.register(region(cuda.share(SIZE)[0]))
    tensor = regions.tensor("g", 0, 1004, "UINT8", [1004])
    with pytest.raises(LimitExceededError):
        tensor.to_host()
    with pytest.raises(LimitExceededError):
        regions.write("g", 0, SIZE, bytes(1001))
    with pytest.raises(InvalidInputError, match="don't fit"):
        regions.write("g", 0, 2, b"123")
    with pytest.raises(InvalidInputError, match="BYTES"):
        regions.tensor("g", 0, 8, "BYTES", [1])


def test_unknown_regions_are_named(regions: CudaRegions) -> None:
    with pytest.raises(NotFoundError, match="'nope'"):
        regions.status("nope")
    with pytest.raises(NotFoundError, match="'nope'"):
        regions.tensor("nope", 0, 4, "FP32", [1])


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_a_region_has_a_name(regions: CudaRegions, cuda: SimulatedCuda, name: str) -> None:
    with pytest.raises(InvalidInputError, match="name"):
        regions.register(region(cuda.share(SIZE)[0], name=name))


def test_nobody_looks_for_a_gpu_before_it_is_needed() -> None:
    asked: list[int] = []
    memory = SharedMemory(
        SystemRegions(max_bytes=10), CudaRegions(max_bytes=10, find=lambda: asked.append(1))
    )
    assert not memory.uses_gpu
    memory.close()
    assert asked == []
    assert not memory.has_cuda
    assert not memory.has_cuda
    assert asked == [1]


def test_a_region_of_the_system_is_not_the_gpus(tmp_path: Path) -> None:
    memory = SharedMemory(SystemRegions(max_bytes=100, folder=tmp_path))
    with shared_object(8, folder=tmp_path) as path:
        memory.register(Region(name="r", key=path.name, offset=0, byte_size=8))
        assert memory.device_of("r") is None
        assert not memory.has_cuda
        memory.close()
