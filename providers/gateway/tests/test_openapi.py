"""The OpenAPI document tells what is served, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from edgefleet.protocol import gateway as api
from edgefleet_gateway.server.openapi import described, document
from edgefleet_gateway.server.routes import OPERATIONS, Who
from providers.gateway.tests.server_rig import Fleet

DOCUMENT: dict[str, Any] = json.loads(document())
FILLED = {"{hex}": "a" * 64, "{path}": "segments/x", "{id}": "a" * 32}


def filled(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path


def test_each_operation_of_the_document_is_served_and_no_other_method(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        for path, operations in DOCUMENT["paths"].items():
            for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"):
                answer = device.ask(method, filled(path))
                served = method.lower() in operations
                assert (answer.status != 405) == served, (method, path, answer)
                if served and answer.status >= 400 and method != "HEAD":
                    answer.problem()
        assert json.loads(device.get("/openapi.json").body) == DOCUMENT


def test_every_path_of_the_protocol_is_in_the_table() -> None:
    named = {
        value for name, value in vars(api).items() if name.isupper() and str(value).startswith("/")
    }
    paths = {operation.path for operation in OPERATIONS}
    for path in named - {api.ROOT}:
        assert any(one == path or one.startswith(path + "/") for one in paths), path


def test_every_header_field_of_the_protocol_is_in_the_document() -> None:
    text = document().decode()
    fields = [value for name, value in vars(api).items() if name.endswith("_HEADER")]
    assert fields
    assert [field for field in fields if f'"{field}"' not in text] == []


def test_operations_are_named_once_and_say_what_they_take_and_give() -> None:
    names = [operation.name for operation in OPERATIONS]
    assert len(names) == len({*names})
    for operation in OPERATIONS:
        told = DOCUMENT["paths"][operation.path][operation.method.lower()]
        assert ("security" in told) == (operation.who in {Who.DEVICE, Who.RENEWING})
        assert ("requestBody" in told) == (operation.takes is not None)
        if operation.takes is not None:
            assert operation.takes.max_bytes > 0
        in_path = {p["name"] for p in told["parameters"] if p["in"] == "path"}
        assert in_path == {*re.findall(r"{(\w+)}", operation.path)}
        assert {"default"} < told["responses"].keys()


def test_every_reference_leads_somewhere_and_the_schemas_are_schemas() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    found = re.findall(r'"#/components/schemas/(\w+)"', document().decode())
    assert found
    assert {*found} <= schemas.keys()
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_a_schema_takes_what_the_protocol_writes() -> None:
    schemas = {"components": DOCUMENT["components"]}
    problem = msgspec.to_builtins(api.Problem(title="x", status=400))
    jsonschema.validate(problem, schemas | DOCUMENT["components"]["schemas"]["Problem"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({}, schemas | DOCUMENT["components"]["schemas"]["Problem"])


def test_a_document_of_nothing_has_no_paths() -> None:
    assert described(())["paths"] == {}
