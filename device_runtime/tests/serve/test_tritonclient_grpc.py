"""The server as Triton's own gRPC client, unmodified, sees it."""

from __future__ import annotations

import queue
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException, shared_memory

from device_runtime.tests.serve import triton
from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serve.triton import vector
from device_runtime.tests.serving import WAIT_S, FakeModel, served, table_of
from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    table = triton.table(tmp_path_factory.mktemp("models"))
    with serving_grpc(table, control=triton.Control(table)) as (_, address):
        yield address


@pytest.fixture
def grpc(address: str) -> Iterator[Any]:
    with client.InferenceServerClient(address) as grpc:
        yield grpc


def tensor(name: str, array: Any, datatype: str = "FP32") -> Any:
    given = client.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def test_health_and_metadata(grpc: Any) -> None:
    assert grpc.is_server_live()
    assert grpc.is_server_ready()
    assert grpc.is_model_ready("mlp", "3")
    assert not grpc.is_model_ready("mlp", "4")
    assert "statistics" in grpc.get_server_metadata().extensions
    metadata = grpc.get_model_metadata("mlp")
    assert list(metadata.inputs[0].shape) == [-1, 4]
    assert list(metadata.versions) == ["3"]


def test_raw_tensors_chosen_outputs_and_ids(grpc: Any) -> None:
    result = grpc.infer("mlp", [tensor("x", triton.X)], request_id="r-1")
    np.testing.assert_array_equal(result.as_numpy("y"), triton.Y)
    assert (result.get_response().id, result.get_response().model_version) == ("r-1", "3")
    wanted = [client.InferRequestedOutput("plus")]
    chosen = grpc.infer("two", [tensor("x", np.array(-2, np.float32))], outputs=wanted)
    assert [output.name for output in chosen.get_response().outputs] == ["plus"]


@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_compressed_messages(grpc: Any, coding: str | None) -> None:
    big = np.repeat(triton.X, 400, axis=0)
    result = grpc.infer("mlp", [tensor("x", big)], compression_algorithm=coding)
    np.testing.assert_array_equal(result.as_numpy("y"), np.repeat(triton.Y, 400, axis=0))


def test_bytes_tensors(grpc: Any) -> None:
    seen = grpc.infer("text", [tensor("x", triton.WORDS, "BYTES")]).as_numpy("y")
    assert seen.tolist() == triton.WORDS.tolist()


def test_calls_in_flight_together(grpc: Any) -> None:
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    for n in range(8):
        grpc.async_infer(
            "plus",
            [tensor("x", vector(n))],
            lambda result, error, n=n: answers.put((n, result, error)),
        )
    for _ in range(8):
        n, result, error = answers.get(timeout=WAIT_S)
        assert error is None
        assert result.as_numpy("y").tolist() == [n + 1]


def test_a_stream_answers_in_order_and_outlives_an_error(grpc: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    grpc.start_stream(lambda result, error: answers.put((result, error)))
    for n in range(5):
        model = "nope" if n == 2 else "plus"
        grpc.async_stream_infer(model, [tensor("x", vector(n))], request_id=str(n))
    seen = [answers.get(timeout=WAIT_S) for _ in range(5)]
    grpc.stop_stream()
    for n, (result, error) in enumerate(seen):
        if n == 2:
            assert "'nope' is not served here" in str(error)
        else:
            assert error is None
            assert result.get_response().id == str(n)
            assert result.as_numpy("y").tolist() == [n + 1]
            assert result.get_response().parameters["triton_final_response"].bool_param


def test_configuration(grpc: Any) -> None:
    config = grpc.get_model_config("mlp").config
    assert (config.platform, config.backend) == ("onnxruntime_onnx", "onnxruntime")
    assert list(config.input[0].dims) == [-1, 4]
    assert config.parameters["execution_providers"].string_value == "CPUExecutionProvider"
    assert grpc.get_model_config("text", as_json=True)["config"]["output"][0]["data_type"] == (
        "TYPE_STRING"
    )


def test_statistics_are_of_rest_and_grpc_together() -> None:
    with serving_grpc(table_of(served(FakeModel()))) as (rest, address):
        rest.infer(1)
        with client.InferenceServerClient(address) as grpc:
            grpc.infer("m", [tensor("x", vector(1))])
            (model,) = grpc.get_inference_statistics().model_stats
    assert (model.inference_count, model.inference_stats.success.count) == (2, 2)
    assert model.inference_stats.compute_infer.ns > 0


def test_models_are_listed_loaded_and_unloaded(grpc: Any) -> None:
    index = {model.name: model.state for model in grpc.get_model_repository_index().models}
    assert (index["mlp"], index["spare"]) == ("READY", "UNAVAILABLE")
    grpc.load_model("spare", config="{}", files={"file:1/m.onnx": b"\0x"})
    assert grpc.infer("spare", [tensor("x", vector(1))]).as_numpy("y").tolist() == [8]
    grpc.unload_model("spare")
    assert not grpc.is_model_ready("spare")
    with pytest.raises(InferenceServerException, match="no model 'ghost'") as raised:
        grpc.load_model("ghost")
    assert raised.value.status() == "StatusCode.NOT_FOUND"


def test_without_a_control_nobody_loads_models() -> None:
    with (
        serving_grpc(table_of(served(FakeModel()))) as (_, address),
        client.InferenceServerClient(address) as grpc,
        pytest.raises(InferenceServerException, match="model control is off") as raised,
    ):
        grpc.load_model("m")
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


@pytest.mark.skipif(not SystemRegions.supported(), reason="no /dev/shm on this system")
def test_tensors_in_shared_memory(grpc: Any) -> None:
    key = f"/edgefleet-test-{uuid.uuid4().hex}"
    handle = shared_memory.create_shared_memory_region("g", key, 4096)
    try:
        shared_memory.set_shared_memory_region(handle, [triton.X])
        grpc.register_system_shared_memory("g", key, 4096)
        assert grpc.get_system_shared_memory_status().regions["g"].byte_size == 4096
        given = client.InferInput("x", [2, 4], "FP32")
        given.set_shared_memory("g", triton.X.nbytes)
        wanted = client.InferRequestedOutput("y")
        wanted.set_shared_memory("g", 1024, offset=1024)
        result = grpc.infer("mlp", [given], outputs=[wanted])
        size = result.get_output("y").parameters["shared_memory_byte_size"].int64_param
        assert size == triton.Y.nbytes
        seen = shared_memory.get_contents_as_numpy(handle, np.float32, [2, 2], offset=1024)
        np.testing.assert_array_equal(seen, triton.Y)
        with pytest.raises(InferenceServerException) as raised:
            grpc.register_system_shared_memory("g", key, 4096)
        assert raised.value.status() == "StatusCode.ALREADY_EXISTS"
        grpc.unregister_system_shared_memory("g")
        assert not grpc.get_system_shared_memory_status().regions
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def test_a_unix_socket_serves_the_same(tmp_path: Path) -> None:
    path = tmp_path / "s"
    table = table_of(served(FakeModel(1)))
    with serving_grpc(table, host=None, uds=path) as (_, address):
        assert address == f"unix:{path}"
        assert path.stat().st_mode & 0o777 == 0o660
        with client.InferenceServerClient(address) as grpc:
            assert grpc.infer("m", [tensor("x", vector(1))]).as_numpy("y").tolist() == [2]
    assert not path.exists()
