"""Open Inference Protocol v2 over a real socket, held against the published contract."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
import yaml

from device_runtime.tests import onnx_models
from device_runtime.tests.serving import served, serving, table_of
from edgefleet.protocol.inference import decode_response, encode_request
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgefleet_runtime.serve.messages import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from device_runtime.tests.serving import Reply, Running

    Validate = Callable[[Any, str], None]

INFER = "/v2/models/mlp/infer"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("models")
    engine = OnnxRuntimeEngine()
    mlp = engine.load(onnx_models.mlp(folder / "mlp.onnx"), EngineOptions(threads=1))
    two = engine.load(onnx_models.scalar_and_two_outputs(folder / "2.onnx"), EngineOptions())
    table = table_of(served(mlp, "mlp", "3"), served(two, "two"))
    with serving(table, limits=Limits(max_body_bytes=100_000)) as running:
        yield running


@pytest.fixture(scope="session")
def validate(contracts: Path) -> Validate:
    text = (contracts / "oip" / "open_inference_rest.yaml").read_text()
    schemas = yaml.safe_load(text)["components"]["schemas"]

    def validate(content: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
        jsonschema.validate(content, schema)

    return validate


def mlp_request(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 1]}
    return {"inputs": [{**tensor, **changes}]}


def post(running: Running, content: object, path: str = INFER, **headers: str) -> Reply:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return running.ask("POST", path, body, headers)


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_server_metadata(running: Running, validate: Validate, path: str) -> None:
    reply = running.ask("GET", path)
    assert reply.status == 200
    validate(reply.json, "metadata_server_response")
    assert reply.json["name"] == "edgefleet-runtime"
    assert "binary_tensor_data" in reply.json["extensions"]


@pytest.mark.parametrize("path", ["/v2/models/mlp", "/v2/models/mlp/versions/3"])
def test_model_metadata(running: Running, validate: Validate, path: str) -> None:
    reply = running.ask("GET", path)
    assert reply.status == 200
    validate(reply.json, "metadata_model_response")
    assert reply.json["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    assert reply.json["versions"] == ["3"]
    assert reply.json["platform"] == "onnxruntime_onnx"
    assert reply.json["properties"]["providers"] == "CPUExecutionProvider"


@pytest.mark.parametrize(
    "path",
    [
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/health/settled",
        "/v2/models/mlp/ready",
        "/v2/models/mlp/versions/3/ready",
        "/v2/models/m%6Cp/ready",
        "/v2/models/mlp/ready?verbose=1",
    ],
)
def test_health(running: Running, path: str) -> None:
    assert running.ask("GET", path).status == 200


def test_ready_is_the_owners_word() -> None:
    word = {"ready": False}
    with serving(table_of(), ready=lambda: word["ready"]) as running:
        assert running.ask("GET", "/v2/health/ready").status == 503
        assert running.ask("GET", "/v2/health/live").status == 200
        word["ready"] = True
        assert running.ask("GET", "/v2/health/ready").status == 200


def test_without_a_model_a_server_is_not_ready() -> None:
    with serving(table_of()) as running:
        assert running.ask("GET", "/v2/health/ready").status == 503


def test_a_server_that_isnt_ready_has_settled_when_its_owner_says_so() -> None:
    word = {"settled": False}
    with serving(table_of(), settled=lambda: word["settled"]) as running:
        assert running.ask("GET", "/v2/health/settled").status == 503
        word["settled"] = True
        assert running.ask("GET", "/v2/health/settled").status == 200
        assert running.ask("GET", "/v2/health/ready").status == 503


def test_inference_in_json(running: Running, validate: Validate) -> None:
    request = {"id": "42", **mlp_request()}
    validate(request, "inference_request")
    reply = post(running, request)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    validate(reply.json, "inference_response")
    assert reply.json == {
        "model_name": "mlp",
        "model_version": "3",
        "id": "42",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [3.0, 4.0]}],
    }


def test_inference_in_raw_bytes(running: Running) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    body, headers = encode_request({"x": x}, request_id="7")
    reply = running.ask("POST", "/v2/models/mlp/versions/3/infer", body, headers)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/octet-stream"
    seen = decode_response(reply.body, int(reply.headers["Inference-Header-Content-Length"]))
    assert (seen.model_name, seen.model_version, seen.id) == ("mlp", "3", "7")
    weights = np.arange(8, dtype=np.float32).reshape(4, 2) - 3
    np.testing.assert_allclose(seen.outputs["y"], np.maximum(x @ weights, 0), rtol=1e-5)


def test_outputs_are_chosen_ordered_and_each_in_its_form(running: Running) -> None:
    reply = post(
        running,
        {
            "inputs": [{"name": "x", "shape": [], "datatype": "FP32", "data": [-2]}],
            "outputs": [
                {"name": "plus", "parameters": {"binary_data": True}},
                {"name": "minus"},
            ],
        },
        "/v2/models/two/infer",
    )
    length = int(reply.headers["Inference-Header-Content-Length"])
    plus, minus = json.loads(reply.body[:length])["outputs"]
    assert (plus["name"], plus["parameters"]) == ("plus", {"binary_data_size": 4})
    assert (minus["name"], minus["data"]) == ("minus", [2.0])
    assert np.frombuffer(reply.body[length:], np.float32).tolist() == [2.0]


@pytest.mark.parametrize(
    "encoding,compress", [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)]
)
def test_compressed_bodies(
    running: Running, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    body = compress(json.dumps(mlp_request()).encode())
    reply = running.ask("POST", INFER, body, {"Content-Encoding": encoding})
    assert reply.json["outputs"][0]["data"] == [3.0, 4.0]


@pytest.mark.parametrize(
    "method,path,status,said",
    [
        ("GET", "/", 404, "nothing at /"),
        ("GET", "/v2/models", 404, "nothing at"),
        ("GET", "/v2/models/mlp/", 404, "nothing at"),
        ("GET", "/v2/models/nope", 404, "'nope' is not served here; served now: mlp:3, two:1"),
        ("GET", "/v2/models/mlp/versions/4/ready", 404, "'mlp:4' is not served here"),
        ("POST", "/v2/models/nope/infer", 404, "'nope' is not served here"),
        ("POST", "/v2/models/mlp/versions/4/infer", 404, "'mlp:4'"),
        ("GET", INFER, 405, "use POST"),
        ("POST", "/v2", 405, "use GET"),
        ("DELETE", "/v2/models/mlp", 405, "use GET"),
        ("GET", "/v2/%ff%00/models", 404, "nothing at"),
    ],
)
def test_wrong_addresses(
    running: Running, validate: Validate, *, method: str, path: str, status: int, said: str
) -> None:
    reply = running.ask(method, path)
    assert reply.status == status
    validate(reply.json, "inference_error_response")
    assert said in reply.json["error"]


@pytest.mark.parametrize(
    "body,headers,status,said",
    [
        (b"", {}, 400, "0 bytes"),
        (b"{", {}, 400, "malformed inference request"),
        (b"null", {}, 400, "malformed inference request"),
        (b"[" * 50_000, {}, 400, "malformed"),
        ({"inputs": []}, {}, 400, "input 'x' is missing; it takes x (FP32)"),
        (mlp_request(name="z"), {}, 400, "input 'x' is missing"),
        (mlp_request(datatype="FP64"), {}, 400, "takes FP32, not FP64"),
        (mlp_request(datatype="int"), {}, 400, "no such datatype"),
        (mlp_request(shape=[4]), {}, 400, "takes shape [-1, 4], not [4]"),
        (mlp_request(shape=[2**40, 2**40]), {}, 400, "over the limit"),
        (mlp_request(shape=[-1, 4]), {}, 400, "shape"),
        (mlp_request(shape=[2, 4]), {}, 400, "takes 8"),
        (mlp_request(data=[0, 0, 0, "1"]), {}, 400, "no list of FP32"),
        (mlp_request(data=[0, 0, 0, 1e300]), {}, 400, "does not fit FP32"),
        ({**mlp_request(), "outputs": [{"name": "q"}]}, {}, 400, "no output 'q'"),
        ({**mlp_request(), "id": 7}, {}, 400, "id"),
        (mlp_request(), {"Inference-Header-Content-Length": "x"}, 400, "no whole number"),
        (mlp_request(), {"Inference-Header-Content-Length": "999999"}, 400, "the body has"),
        (mlp_request(), {"Inference-Header-Content-Length": "10"}, 400, "malformed"),
        (b"no gzip", {"Content-Encoding": "gzip"}, 400, "no gzip data"),
        (gzip.compress(b"{}", mtime=0)[:-4], {"Content-Encoding": "gzip"}, 400, "cut short"),
        (b"{}", {"Content-Encoding": "br"}, 415, "'br' is not known here"),
        (
            gzip.compress(b" " * 200_000, mtime=0),
            {"Content-Encoding": "gzip"},
            413,
            "once decompressed",
        ),
        (b" " * 100_001, {}, 413, "over the limit of 100000 bytes"),
    ],
)
def test_bad_requests_say_what_was_wrong(
    running: Running,
    validate: Validate,
    *,
    body: object,
    headers: dict[str, str],
    status: int,
    said: str,
) -> None:
    reply = post(running, body, INFER, **headers)
    assert reply.status == status
    validate(reply.json, "inference_error_response")
    assert said in reply.json["error"]
