"""The OpenAPI document, made from the route table."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from edgefleet.protocol.gateway import PROBLEM_TYPE, Problem
from edgefleet_gateway.server.routes import OPERATIONS, Content, Field, Operation, Who

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = "1.0.0"
_TEMPLATE = "#/components/schemas/{name}"
_PATTERNS = {"hex": "^[0-9a-f]{64}$", "id": "^[0-9a-f]{32}$", "path": "^(segments|samples)/.+$"}


@cache
def document() -> bytes:
    """OpenAPI 3.1, as JSON."""
    return msgspec.json.encode(described(OPERATIONS))


def described(operations: Iterable[Operation]) -> dict[str, Any]:
    """The document of some operations."""
    operations = tuple(operations)
    kinds: dict[type[msgspec.Struct], None] = {Problem: None}
    for operation in operations:
        contents = [operation.takes, *(answer.content for answer in operation.gives.values())]
        kinds |= {c.kind: None for c in contents if c is not None and c.kind is not None}
    _, schemas = msgspec.json.schema_components(tuple(kinds), ref_template=_TEMPLATE)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "EdgeFleet gateway",
            "version": VERSION,
            "description": (
                "What devices pull from. A device is who its client certificate says; every "
                "refusal is a problem document with a code where a device acts upon it."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.about,
        "description": f"Who may ask: {operation.who.value}.",
        "parameters": [
            *(_path_parameter(name) for name in _PATTERNS if f"{{{name}}}" in operation.path),
            *(_header(field) for field in operation.fields),
        ],
        "responses": {
            **{
                str(status): {
                    "description": answer.about,
                    **({} if answer.content is None else _content(answer.content)),
                    "headers": {
                        field.name: {"description": field.about, "schema": {"type": "string"}}
                        for field in answer.fields
                    },
                }
                for status, answer in operation.gives.items()
            },
            "default": {
                "description": "refused",
                **_content(Content(PROBLEM_TYPE, Problem)),
            },
        },
    }
    if operation.takes is not None:
        told["requestBody"] = {
            "required": True,
            "description": f"At most {operation.takes.max_bytes} bytes.",
            **_content(operation.takes),
        }
    if operation.who in (Who.DEVICE, Who.RENEWING):
        told["security"] = [{"certificate": []}]
    return told


def _content(content: Content) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    if content.kind is not None:
        schema = {"$ref": _TEMPLATE.format(name=content.kind.__name__)}
        if content.many:
            schema = {"type": "array", "items": schema}
    return {"content": {content.media_type: {"schema": schema}}}


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "pattern": _PATTERNS[name]}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _header(field: Field) -> dict[str, Any]:
    return {
        "name": field.name,
        "in": "header",
        "description": field.about,
        "required": field.required,
        "schema": {"type": "string"},
    }
