"""A server of one AWS service that speaks REST-JSON, made from botocore's own model of it.

Routes, places of parameters, required members, types, enumerations, patterns and lengths come from
the model that the SDKs are made from; only what the operations do is ours. What the model doesn't
name is answered 404, and what nobody implements 501.

Rules kept here:

- A request that AWS would refuse for its form is refused, with AWS's error.
- Each answer is checked as well: an operation that gives what AWS can't give fails the call loudly.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, unquote

from botocore.loaders import Loader
from botocore.model import ServiceModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from botocore.model import OperationModel, Shape

    Operation = Callable[[dict[str, Any]], Mapping[str, Any] | None]

_PARAMETER = re.compile(r"\{(\w+)(\+?)\}")


class ServiceError(Exception):
    """An error of the service's model, by its code, with the members that it requires."""

    def __init__(self, code: str, message: str, **members: object) -> None:
        super().__init__(message)
        self.code = code
        self.members: dict[str, object] = {"message": message, **members}


class Reply(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Route(NamedTuple):
    method: str
    pattern: re.Pattern[str]
    operation: OperationModel
    literals: int  # of its path; of two that match, the one with more is meant


class RestJsonService:
    """Answers HTTP requests to a service from its operations.

    Args:
        name: of the service, as botocore has it.
        operations: by name; one gets the request's members and gives the answer's, or raises a
            `ServiceError`.
    """

    def __init__(self, name: str, operations: Mapping[str, Operation]) -> None:
        self.model = ServiceModel(Loader().load_service_model(name, "service-2"))
        unknown = operations.keys() - set(self.model.operation_names)
        if unknown:
            raise ValueError(f"{name} has no operations {sorted(unknown)}")
        self._operations = dict(operations)
        self._routes = sorted(
            (_route(self.model.operation_model(name)) for name in self.model.operation_names),
            key=lambda route: -route.literals,
        )

    def operation(self, method: str, path: str) -> str | None:
        """The operation that a request means; None where there is none."""
        found = self._match(method, path)
        return None if found is None else found[0].operation.name

    def answer(
        self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """Answer a request.

        Args:
            method: of HTTP.
            path: as it came, percent-encoded.
            query: likewise, without the question mark.
            headers: names in lower case.
            body: as it came.
        """
        found = self._match(method, path)
        if found is None:
            return _failure("UnknownOperationException", 404, {"message": f"{method} {path}"})
        route, uri = found
        operation = route.operation
        try:
            handler = self._operations.get(operation.name)
            if handler is None:
                message = f"the mock doesn't implement {operation.name}"
                return _failure("NotImplementedException", 501, {"message": message})
            request = _request(operation, uri, query, headers, body)
            if operation.input_shape is not None:
                _refuse(operation.input_shape, request)
            content = dict(handler(request) or {})
        except ServiceError as error:
            return self._refused(operation, error)
        if operation.output_shape is not None:
            wrong = list(problems(operation.output_shape, content))
            if wrong:
                raise AssertionError(f"{operation.name} answers what AWS can't: {wrong}")
        data = json.dumps(_plain(content)).encode()
        status = int(operation.http.get("responseCode") or 200)
        if status == 204:
            return Reply(status, {}, b"")
        return Reply(status, {"content-type": "application/json"}, data)

    def _match(self, method: str, path: str) -> tuple[_Route, dict[str, str]] | None:
        for route in self._routes:
            found = route.pattern.fullmatch(path) if route.method == method else None
            if found is not None:
                return route, {key: unquote(value) for key, value in found.groupdict().items()}
        return None

    def _refused(self, operation: OperationModel, error: ServiceError) -> Reply:
        shapes = {shape.name: shape for shape in operation.error_shapes}
        shape = shapes.get(error.code)
        if shape is None:
            raise AssertionError(f"{operation.name} has no error {error.code}") from error
        wrong = list(problems(shape, error.members))
        if wrong:
            raise AssertionError(f"{error.code} as AWS can't give it: {wrong}") from error
        return _failure(error.code, int(shape.metadata["error"]["httpStatusCode"]), error.members)


def problems(shape: Shape, value: object, where: str = "") -> Iterable[str]:
    """What is wrong with a value for a shape of a model, a phrase each.

    Beyond botocore's own checks: enumerations, patterns and greatest lengths.
    """
    kind = shape.type_name
    at = where or "input"
    if kind == "structure":
        yield from _structure_problems(shape, value, where)
    elif kind == "list":
        if not isinstance(value, list):
            yield f"{at} is no list"
            return
        yield from _length_problems(shape, len(value), at)
        for index, item in enumerate(value):
            yield from problems(shape.member, item, f"{where}[{index}]")
    elif kind == "map":
        if not isinstance(value, dict):
            yield f"{at} is no map"
            return
        yield from _length_problems(shape, len(value), at)
        for key, item in value.items():
            yield from problems(shape.key, key, f"{where}.{key} (key)")
            yield from problems(shape.value, item, f"{where}.{key}")
    else:
        yield from _scalar_problems(shape, value, at)


def _structure_problems(shape: Any, value: object, where: str) -> Iterable[str]:  # noqa: ANN401
    if not isinstance(value, dict):
        yield f"{where or 'input'} is no structure"
        return
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"{where}.{name} is missing".lstrip(".")
    for name, item in value.items():
        if name not in shape.members:
            yield f"{where}.{name} is unknown".lstrip(".")
        elif item is not None:
            yield from problems(shape.members[name], item, f"{where}.{name}".lstrip("."))


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (dt.datetime, int, float),
    "blob": (bytes, str),
}


def _scalar_problems(shape: Any, value: object, at: str) -> Iterable[str]:  # noqa: ANN401
    kind = shape.type_name
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{at} is no {kind}"
        return
    if isinstance(value, str):
        enum = getattr(shape, "enum", None)
        if enum and value not in enum:
            yield f"{at} is none of {', '.join(enum)}"
        pattern = shape.metadata.get("pattern")
        if pattern and not re.search(pattern, value):
            yield f"{at} doesn't match {pattern}"
    if isinstance(value, str | bytes):
        yield from _length_problems(shape, len(value), at)
    elif kind in {"integer", "long", "float", "double"} and isinstance(value, int | float):
        yield from _length_problems(shape, value, at)


def _length_problems(shape: Any, size: float, at: str) -> Iterable[str]:  # noqa: ANN401
    low, high = shape.metadata.get("min"), shape.metadata.get("max")
    if low is not None and size < low:
        yield f"{at}: {size} is less than {low}"
    if high is not None and size > high:
        yield f"{at}: {size} is more than {high}"


def _refuse(shape: Shape, request: dict[str, Any]) -> None:
    wrong = list(problems(shape, request))
    if wrong:
        raise ServiceError(
            "ValidationException", "; ".join(wrong), reason="FIELD_VALIDATION_FAILED"
        )


def _route(operation: OperationModel) -> _Route:
    path = operation.http["requestUri"].partition("?")[0]
    pattern, start = "", 0
    for found in _PARAMETER.finditer(path):
        pattern += re.escape(path[start : found.start()])
        pattern += f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})"
        start = found.end()
    pattern += re.escape(path[start:])
    literals = len(_PARAMETER.sub("", path))
    return _Route(operation.http["method"], re.compile(pattern), operation, literals)


def _request(
    operation: OperationModel,
    uri: Mapping[str, str],
    query: str,
    headers: Mapping[str, str],
    body: bytes,
) -> dict[str, Any]:
    """The members of a request, from wherever the model puts them."""
    shape: Any = operation.input_shape
    if shape is None:
        return {}
    content = _content(body)
    asked = parse_qs(query, keep_blank_values=True)
    request: dict[str, Any] = {}
    for member, kind in shape.members.items():
        name = kind.serialization.get("name", member)
        place = kind.serialization.get("location")
        if place == "uri":
            request[member] = uri[name]
        elif place == "querystring" and name in asked:
            request[member] = _converted(kind, asked[name])
        elif place == "header" and name.lower() in headers:
            request[member] = headers[name.lower()]
        elif place is None and name in content:
            request[member] = content.pop(name)
    return {**content, **request}  # what is unknown is refused with the rest


def _content(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body) if body else {}
    except ValueError as error:
        raise ServiceError("ValidationException", str(error), reason="CANNOT_PARSE") from error
    if not isinstance(content, dict):
        raise ServiceError("ValidationException", "the body is no object", reason="CANNOT_PARSE")
    return content


def _converted(kind: Any, values: list[str]) -> Any:  # noqa: ANN401
    if kind.type_name == "list":
        return values
    (value,) = values[-1:]
    if kind.type_name in {"integer", "long"} and value.lstrip("-").isdigit():
        return int(value)
    if kind.type_name == "boolean" and value in {"true", "false"}:
        return value == "true"
    return value


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """As JSON has it: times as seconds since 1970, nothing for what is None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dt.datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value


def _failure(code: str, status: int, members: Mapping[str, object]) -> Reply:
    headers = {"content-type": "application/json", "x-amzn-errortype": code}
    return Reply(status, headers, json.dumps(_plain(dict(members))).encode())
