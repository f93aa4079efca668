"""Operations of a service of the REST-JSON protocol, held to botocore's model both ways.

Where the members of a request lie (path, query, headers, body) and what they may be comes from the
model that the SDKs are made from; only what the operations do is ours.
"""

from __future__ import annotations

import base64
import datetime as dt
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from edgefleet_aws.cloud.calls import Call, Fault, answer_json, raw_path
from edgefleet_aws.cloud.strictness import (
    ModelError,
    check_answer,
    check_request,
    service_model,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from wsgiref.types import StartResponse

_PARAMETER = re.compile(r"\{(\w+)(\+?)\}")


class RestJsonMount:
    """A service, or some operations of one that moto serves.

    Args:
        operations: operation -> what answers it, from the request's members to the answer's.
        whole: whether this is all of the service: an operation that isn't here is answered 501.
            Otherwise it is left to moto, once its request has been checked.
        refusal: what the service answers to a request that makes no sense.
    """

    def __init__(
        self,
        operations: Mapping[str, Callable[[dict[str, Any]], Any]],
        *,
        whole: bool = True,
        refusal: Callable[[str], Fault] | None = None,
    ) -> None:
        self._operations = dict(operations)
        self._whole = whole
        self._refusal = refusal or invalid

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes] | None:
        """Check, do, check, answer."""
        model = service_model(call.service)
        handler = self._operations.get(call.operation)
        if call.operation not in model.operation_names:
            if not self._whole:
                return None
            raise Fault("UnknownOperationException", call.path, 404)
        if handler is None and self._whole:
            raise Fault("NotImplementedException", f"the mock lacks {call.operation}", 501)
        operation = model.operation_model(call.operation)
        request = _request(operation, call)
        try:
            check_request(operation, request)
        except ModelError as error:
            raise self._refusal(str(error)) from error
        if handler is None:
            return None
        content = plain(dict(handler(request) or {}))
        check_answer(operation, content)
        status = int(operation.http.get("responseCode") or 200)
        if status == 204:
            start("204 No Content", [("Content-Length", "0")])
            return []
        return answer_json(start, status, content)


def invalid(message: str) -> Fault:
    """What Greengrass answers to a request that makes no sense."""
    return Fault("ValidationException", message, 400, reason="FIELD_VALIDATION_FAILED")


def invalid_in_iot(message: str) -> Fault:
    """What IoT Core answers to a request that makes no sense."""
    return Fault("InvalidRequestException", message, 400)


def _request(operation: Any, call: Call) -> dict[str, Any]:  # noqa: ANN401 - botocore has no types
    """The members of a request, from wherever the model puts them."""
    shape = operation.input_shape
    if shape is None:
        return {}
    payload = shape.serialization.get("payload")
    content = {} if payload else call.json()
    found = _path(operation).fullmatch(raw_path(call.environ))
    uri = {} if found is None else {key: unquote(one) for key, one in found.groupdict().items()}
    query = parse_qs(str(call.environ.get("QUERY_STRING", "")), keep_blank_values=True)
    request: dict[str, Any] = {}
    for member, kind in shape.members.items():
        name = kind.serialization.get("name", member)
        place = kind.serialization.get("location")
        header = "HTTP_" + name.upper().replace("-", "_")
        if place == "uri" and name in uri:
            request[member] = uri[name]
        elif place == "querystring" and name in query:
            request[member] = _converted(kind, query[name])
        elif place == "header" and header in call.environ:
            request[member] = call.environ[header]
        elif place is None and name in content:
            request[member] = _read(kind, content.pop(name))
    if payload:
        request[payload] = call.body()
    return {**content, **request}  # what is unknown is refused with the rest


def _path(operation: Any) -> re.Pattern[str]:  # noqa: ANN401
    path = operation.http["requestUri"].partition("?")[0]
    pattern, start = "", 0
    for found in _PARAMETER.finditer(path):
        pattern += re.escape(path[start : found.start()])
        pattern += f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})"
        start = found.end()
    return re.compile(pattern + re.escape(path[start:]) + "/?")


def _converted(kind: Any, values: list[str]) -> Any:  # noqa: ANN401
    if kind.type_name == "list":
        return values
    value = values[-1]
    if kind.type_name in {"integer", "long"} and value.lstrip("-").isdigit():
        return int(value)
    if kind.type_name == "boolean" and value in {"true", "false"}:
        return value == "true"
    return value


def _read(kind: Any, value: Any) -> Any:  # noqa: ANN401 - JSON
    """A member of the body: blobs come in base64."""
    if kind.type_name != "blob" or not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise invalid("a blob is no base64") from error


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """As JSON has it: times as seconds since 1970, blobs in base64, nothing for what is None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dt.datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
