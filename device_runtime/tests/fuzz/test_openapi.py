"""Requests made from the protocol's own OpenAPI document, as it says and against what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from device_runtime.tests.onnx_models import mlp
from device_runtime.tests.serving import Running, served, serving, table_of
from edgefleet_runtime.engines.base import EngineOptions
from edgefleet_runtime.engines.onnxruntime import OnnxRuntimeEngine

EXAMPLES = 60  # an operation and mode
INFER = "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}/infer"
OPERATIONS = {
    "/v2/health/live": "GET",
    "/v2/health/ready": "GET",
    "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}/ready": "GET",
    "/v2/": "GET",
    "/v2/models/{MODEL_NAME}/versions/{MODEL_VERSION}": "GET",
    INFER: "POST",
}


@pytest.fixture(scope="module")
def document(contracts: Path) -> dict[str, Any]:
    """The document with paths as OpenAPI writes them, and the served model's names as likely ones.

    Without them no request would come past the table of models.
    """
    text = (contracts / "oip" / "open_inference_rest.yaml").read_text()
    found: dict[str, Any] = yaml.safe_load(text)
    found["paths"] = {path.replace("${", "{"): about for path, about in found["paths"].items()}
    for about in found["paths"].values():
        for parameter in about.get("parameters", ()):
            known = {"MODEL_NAME": "m", "MODEL_VERSION": "1"}[parameter["name"]]
            parameter["schema"] = {"anyOf": [{"enum": [known]}, {"type": "string"}]}
    tensor = found["components"]["schemas"]["request_input"]["properties"]
    tensor["name"] = {"anyOf": [{"enum": ["x"]}, {"type": "string"}]}
    tensor["datatype"] = {"anyOf": [{"enum": ["FP32", "INT64", "BYTES"]}, {"type": "string"}]}
    tensor["shape"] = {"anyOf": [{"enum": [[1, 4], [0, 4]]}, tensor["shape"]]}
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = mlp(tmp_path_factory.mktemp("model") / "mlp.onnx")
    model = OnnxRuntimeEngine().load(path, EngineOptions(threads=1))
    with serving(table_of(served(model))) as running:
        yield running


def test_the_document_describes_what_is_driven_here(document: dict[str, Any]) -> None:
    described = {
        path: verb.upper()
        for path, about in document["paths"].items()
        for verb in about
        if verb in {"get", "put", "post", "delete", "patch", "head", "options"}
    }
    assert described == OPERATIONS


@pytest.mark.parametrize(
    "path,mode",
    [
        *((path, GenerationMode.POSITIVE) for path in OPERATIONS),
        (INFER, GenerationMode.NEGATIVE),  # the others have only paths, in which any text is right
    ],
)
def test_every_request_is_answered_as_the_document_says_or_with_an_error(
    document: dict[str, Any], server: Running, path: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(document)[path][OPERATIONS[path]]
    answer = document["paths"][path][OPERATIONS[path].lower()]["responses"]["200"].get("content")
    schema = {**document, **answer["application/json"]["schema"]} if answer else {}
    base = "http://{}:{}".format(*server.address)

    with requests.Session() as session:

        @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: schemathesis.Case[Any]) -> None:
            reply = case.call(base_url=base, session=session)
            assert reply.status_code < 500 or reply.status_code == 503
            content = reply.json()
            if reply.status_code == 200:
                jsonschema.validate(content, schema)
            else:
                assert list(content) == ["error"]
                assert content["error"]

        ask()
    assert server.ask("GET", "/v2/health/live").status == 200
