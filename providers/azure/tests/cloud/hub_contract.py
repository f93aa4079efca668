"""Holds the mock of IoT Hub, and whoever calls it, to the vendor's own contract."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jsonschema import Draft7Validator

from edgefleet_azure.cloud.hub_rest import Answer, HubRest, Request

if TYPE_CHECKING:
    from pathlib import Path


class HubContract:
    """``service.json`` of api-version 2021-04-12."""

    def __init__(self, folder: Path) -> None:
        found = json.loads((folder / "iothub" / "service.json").read_text(encoding="utf-8"))
        self._definitions = _read(found["definitions"])
        self._operations = {
            operation["operationId"]: (path, method, operation)
            for path, methods in found["paths"].items()
            for method, operation in methods.items()
        }

    def check(self, operation: str, request: Request, answer: Answer) -> None:
        """Raise where request or answer are none of the operation's."""
        path, method, found = self._operations[operation]
        assert (request.method.lower(), len(request.path.split("/"))) == (
            method,
            len(path.split("/")),
        )
        for parameter in found["parameters"]:
            if parameter.get("in") == "body":
                self._validate(parameter["schema"], json.loads(request.body), strict=True)
            elif parameter.get("in") == "header" and parameter.get("required"):
                assert parameter["name"].lower() in request.headers
        if answer.status < 400:
            told = found["responses"][str(answer.status)]
            if "schema" in told and told["schema"].get("items", {}).get("$ref", "") != (
                "#/definitions/Twin"
            ):
                self._validate(told["schema"], answer.document, strict=True)
            elif "schema" in told:  # rows of a query are twins, or what it selects
                assert isinstance(answer.document, list)
            else:
                assert answer.document is None

    def _validate(self, schema: dict[str, Any], document: Any, *, strict: bool) -> None:
        definitions = self._definitions
        if strict:
            definitions = {name: _closed(one) for name, one in definitions.items()}
        whole = {**_read(schema), "definitions": definitions}
        Draft7Validator(whole).validate(document)


def _read(schema: Any) -> Any:
    """The schema as JSON Schema: a bare "object" of Swagger is any JSON, and null is absent."""
    if isinstance(schema, list):
        return [_read(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") == "object" and not schema.keys() & {
        "properties",
        "additionalProperties",
    }:
        return {}
    return {key: _read(value) for key, value in schema.items()}


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "additionalProperties": False} if "properties" in schema else schema


class HeldRest:
    """A hub's API whose every call is held to the contract."""

    def __init__(self, rest: HubRest, contract: HubContract) -> None:
        self._rest, self._contract = rest, contract
        self.operations: list[str] = []

    def answer(self, request: Request) -> Answer:
        answer = self._rest.answer(request)
        operation = self._rest.operation(request.method, request.path)
        assert operation is not None, f"{request.method} {request.path} is no operation"
        self._contract.check(operation, request, answer)
        self.operations.append(operation)
        return answer
