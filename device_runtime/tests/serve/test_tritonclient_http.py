"""The server as Triton's own HTTP client, unmodified, sees it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tritonclient.http as client
from tritonclient.utils import InferenceServerException, shared_memory

from device_runtime.tests.serve import triton
from device_runtime.tests.serve.triton import vector
from device_runtime.tests.serving import FakeModel, served, serving, table_of
from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_runtime.tests.serving import Running

needs_shared_memory = pytest.mark.skipif(
    not SystemRegions.supported(), reason="no /dev/shm on this system"
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    table = triton.table(tmp_path_factory.mktemp("models"))
    with serving(table, control=triton.Control(table)) as running:
        yield running


@pytest.fixture
def http(running: Running) -> Iterator[Any]:
    host, port = running.address
    with client.InferenceServerClient(f"{host}:{port}", concurrency=2) as http:
        yield http


def tensor(name: str, array: Any, datatype: str = "FP32", *, binary: bool = True) -> Any:
    given = client.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def x(*, binary: bool = True) -> Any:
    return tensor("x", triton.X, binary=binary)


def test_health_and_metadata(http: Any) -> None:
    assert http.is_server_live()
    assert http.is_server_ready()
    assert http.is_model_ready("mlp")
    assert http.is_model_ready("mlp", "3")
    assert not http.is_model_ready("mlp", "4")
    metadata = http.get_server_metadata()
    assert set(metadata["extensions"]) >= {
        "binary_tensor_data",
        "model_configuration",
        "model_repository",
        "statistics",
    }
    assert http.get_model_metadata("mlp")["inputs"][0]["shape"] == [-1, 4]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tensors_travel_raw_in_json_and_mixed(
    http: Any, *, binary: bool, binary_out: bool | None
) -> None:
    outputs = None
    if binary_out is not None:
        outputs = [client.InferRequestedOutput("y", binary_data=binary_out)]
    result = http.infer("mlp", [x(binary=binary)], outputs=outputs, request_id="r-1")
    np.testing.assert_array_equal(result.as_numpy("y"), triton.Y)
    assert result.get_response()["id"] == "r-1"
    assert result.get_response()["model_version"] == "3"


@pytest.mark.parametrize("way_in", [None, "gzip", "deflate"])
@pytest.mark.parametrize("way_out", [None, "gzip", "deflate"])
def test_bodies_are_compressed_as_asked(http: Any, way_in: str | None, way_out: str | None) -> None:
    big = np.repeat(triton.X, 400, axis=0)
    result = http.infer(
        "mlp",
        [tensor("x", big)],
        request_compression_algorithm=way_in,
        response_compression_algorithm=way_out,
    )
    np.testing.assert_array_equal(result.as_numpy("y"), np.repeat(triton.Y, 400, axis=0))


def test_an_answer_is_compressed_on_the_wire_for_who_names_one_coding(running: Running) -> None:
    body = b'{"inputs":[{"name":"x","shape":[800],"datatype":"FP32","data":[%s]}]}'
    body %= b",".join([b"1"] * 800)
    path = "/v2/models/plus/infer"
    packed = running.ask("POST", path, body, {"Accept-Encoding": "gzip"})
    plain = running.ask("POST", path, body, {"Accept-Encoding": "gzip, deflate"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert plain.headers["Content-Encoding"] is None
    assert len(packed.body) < len(plain.body) / 4


def test_outputs_are_chosen_and_ordered(http: Any) -> None:
    given = tensor("x", np.array(-2, np.float32))
    wanted = [client.InferRequestedOutput("plus")]
    result = http.infer("two", [given], outputs=wanted)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["plus"]
    assert result.as_numpy("plus") == 2


@pytest.mark.parametrize("binary", [True, False])
def test_bytes_tensors(http: Any, *, binary: bool) -> None:
    given = tensor("x", triton.WORDS, "BYTES", binary=binary)
    outputs = [client.InferRequestedOutput("y", binary_data=binary)]
    seen = http.infer("text", [given], outputs=outputs).as_numpy("y").tolist()
    wanted = triton.WORDS.tolist()
    assert [e.encode() if isinstance(e, str) else e for e in seen] == wanted


def test_requests_in_flight_together(http: Any) -> None:
    waiting = [http.async_infer("plus", [tensor("x", vector(n))]) for n in range(8)]
    assert [float(w.get_result().as_numpy("y")[0]) for w in waiting] == [n + 1.0 for n in range(8)]


@pytest.mark.parametrize(
    "model,body,wanted",
    [
        ("plus", vector(1, 2, 3).tobytes(), vector(2, 3, 4)),
        ("mlp", triton.X.tobytes(), triton.Y),
        ("text", b"whole body", np.array([b"whole body"], object)),
    ],
)
def test_a_raw_body_is_the_only_input(
    running: Running, model: str, body: bytes, wanted: Any
) -> None:
    length = {"Inference-Header-Content-Length": "0"}
    reply = running.ask("POST", f"/v2/models/{model}/infer", body, length)
    assert reply.status == 200, reply.body
    end = int(reply.headers["Inference-Header-Content-Length"])
    result = client.InferResult.from_response_body(reply.body, header_length=end)
    np.testing.assert_array_equal(result.as_numpy("y"), wanted)


def test_a_raw_body_that_does_not_fit_is_refused(running: Running) -> None:
    length = {"Inference-Header-Content-Length": "0"}
    reply = running.ask("POST", "/v2/models/mlp/infer", b"123", length)
    assert reply.status == 400
    assert "FP32[0, 4]" in reply.json["error"]


def test_configuration(http: Any) -> None:
    config = http.get_model_config("mlp")
    assert config["platform"] == "onnxruntime_onnx"
    assert config["max_batch_size"] == 0
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}]
    assert http.get_model_config("text")["output"][0]["data_type"] == "TYPE_STRING"


def test_statistics_count_runs_failures_and_their_time() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    table = table_of(served(FakeModel(), "good", "2"), served(FakeModel(0, fail), "bad"))
    with serving(table) as running:
        host, port = running.address
        with client.InferenceServerClient(f"{host}:{port}") as http:
            for _ in range(3):
                http.infer("good", [tensor("x", vector(1))])
            with pytest.raises(InferenceServerException):
                http.infer("bad", [tensor("x", vector(1))])
            (good,) = http.get_inference_statistics("good", "2")["model_stats"]
            everything = http.get_inference_statistics()["model_stats"]
    assert (good["inference_count"], good["execution_count"]) == (3, 3)
    assert good["inference_stats"]["success"]["count"] == 3
    assert good["inference_stats"]["compute_infer"]["ns"] > 0
    assert good["last_inference"] > 1_600_000_000_000
    assert {m["name"]: m["inference_stats"]["fail"]["count"] for m in everything} == {
        "good": 0,
        "bad": 1,
    }


def test_models_are_listed_loaded_and_unloaded(http: Any) -> None:
    index = {model["name"]: model["state"] for model in http.get_model_repository_index()}
    assert index["mlp"] == "READY"
    assert index["spare"] == "UNAVAILABLE"
    http.load_model("spare")
    assert http.infer("spare", [tensor("x", vector(1))]).as_numpy("y").tolist() == [8]
    http.unload_model("spare", unload_dependents=True)
    assert not http.is_model_ready("spare")
    with pytest.raises(InferenceServerException, match="no model 'ghost'") as raised:
        http.load_model("ghost")
    assert raised.value.status() == "404"


def test_overrides_reach_the_control(tmp_path: Any) -> None:
    table = table_of()
    control = triton.Control(table)
    with serving(table, control=control) as running:
        host, port = running.address
        with client.InferenceServerClient(f"{host}:{port}") as http:
            http.load_model("spare", config='{"max_batch_size":0}', files={"file:1/m.onnx": b"\0x"})
            index = http.get_model_repository_index()
        bad = running.ask(
            "POST",
            "/v2/repository/models/spare/load",
            b'{"parameters":{"config":"{}","file:1/x":"@"}}',
        )
    assert control.seen[0].config == '{"max_batch_size":0}'
    assert control.seen[0].files == {"1/m.onnx": b"\0x"}
    assert index[0]["name"] == "spare"
    assert bad.status == 400
    assert "base64" in bad.json["error"]


@pytest.mark.parametrize("path", ["index", "models/m/load", "models/m/unload"])
def test_without_a_control_nobody_loads_models(path: str) -> None:
    with serving(table_of(served(FakeModel()))) as running:
        reply = running.ask("POST", f"/v2/repository/{path}", b"{}")
        assert "model_repository" not in running.ask("GET", "/v2").json["extensions"]
    assert reply.status == 400
    assert "model control is off" in reply.json["error"]


@needs_shared_memory
def test_tensors_in_shared_memory(http: Any) -> None:
    assert "system_shared_memory" in http.get_server_metadata()["extensions"]
    key = f"/edgefleet-test-{base64.b16encode(np.random.default_rng().bytes(8)).decode()}"
    handle = shared_memory.create_shared_memory_region("io", key, 4096)
    try:
        shared_memory.set_shared_memory_region(handle, [triton.X])
        http.register_system_shared_memory("io", key, 4096)
        (status,) = http.get_system_shared_memory_status()
        assert status == {"name": "io", "key": key, "offset": 0, "byte_size": 4096}
        given = client.InferInput("x", [2, 4], "FP32")
        given.set_shared_memory("io", triton.X.nbytes)
        wanted = client.InferRequestedOutput("y")
        wanted.set_shared_memory("io", 1024, offset=1024)
        result = http.infer("mlp", [given], outputs=[wanted], request_id="s")
        placed = result.get_output("y")["parameters"]
        assert placed["shared_memory_byte_size"] == triton.Y.nbytes
        seen = shared_memory.get_contents_as_numpy(handle, np.float32, [2, 2], offset=1024)
        np.testing.assert_array_equal(seen, triton.Y)
        with pytest.raises(InferenceServerException, match="already registered"):
            http.register_system_shared_memory("io", key, 4096)
        http.unregister_system_shared_memory("io")
        assert http.get_system_shared_memory_status() == []
        with pytest.raises(InferenceServerException, match="no shared memory region 'io'"):
            http.infer("mlp", [given])
    finally:
        shared_memory.destroy_shared_memory_region(handle)


@pytest.mark.parametrize(
    "method,path", [("POST", "/v2/models/mlp/config"), ("GET", "/v2/repository/index")]
)
def test_a_wrong_method_says_which_is_right(running: Running, method: str, path: str) -> None:
    reply = running.ask(method, path)
    assert reply.status == 405
    assert reply.headers["Allow"] in {"GET", "POST"}
