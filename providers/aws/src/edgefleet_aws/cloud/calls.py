"""What a request to the mock asks for, read from the bare request with botocore's models."""

from __future__ import annotations

import functools
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote
from xml.sax.saxutils import escape

from edgefleet_aws.cloud.strictness import service_model

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

MAX_DOCUMENT_BYTES = 16 << 20
_KEY = re.compile(r"Credential=([^/]+)")
_CREDENTIAL = re.compile(r"Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/")
# Signing name -> boto3's name of the service, where they differ.
_SERVICES = {"execute-api": "iot", "iotdata": "iot-data", "greengrass": "greengrassv2"}

_QUERY = {"cloudformation", "iam", "sts"}  # services of the query protocol


class Fault(Exception):  # noqa: N818 - AWS's word
    """An answer that says no.

    Args:
        code: as the vendor writes it.
        message: for people.
        status: of HTTP.
        members: what the answer says beside the message.
    """

    def __init__(self, code: str, message: str, status: int = 400, **members: object) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status
        self.members = members


@dataclass
class Call:
    """One request.

    Attributes:
        service: boto3's name of it; empty for a request that isn't signed.
        region: that the signature names.
        operation: as the model calls it; empty where none fits.
        path: of the address, decoded.
        environ: the bare request.
    """

    service: str
    region: str
    operation: str
    path: str
    environ: WSGIEnvironment

    def body(self) -> bytes:
        """The body of a document's size; it can be read again afterwards.

        Raises:
            Fault: it is too large.
        """
        length = int(self.environ.get("CONTENT_LENGTH") or 0)
        if length > MAX_DOCUMENT_BYTES:
            raise Fault("RequestEntityTooLargeException", f"{length} bytes", 413)
        data: bytes = self.environ["wsgi.input"].read(length)
        self.environ["wsgi.input"] = io.BytesIO(data)
        return data

    def json(self) -> dict[str, Any]:
        """The body of a call of the JSON protocol.

        Raises:
            Fault: it is no JSON object.
        """
        try:
            found = json.loads(self.body() or b"{}")
        except ValueError as error:
            raise Fault("SerializationException", str(error)) from error
        if not isinstance(found, dict):
            raise Fault("SerializationException", "not an object")
        return found

    def swallow(self) -> None:
        """Read the rest of the body, so that the next request on its connection is understood."""
        left = int(self.environ.get("CONTENT_LENGTH") or 0)
        while left > 0 and (data := self.environ["wsgi.input"].read(min(left, 1 << 16))):
            left -= len(data)


def throttled() -> Fault:
    """The answer to a call that comes too often."""
    return Fault("ThrottlingException", "Rate exceeded", 429)


def key_of(call: Call) -> str:
    """The access key that a call is signed with; empty for one that isn't signed."""
    signed = _KEY.search(str(call.environ.get("HTTP_AUTHORIZATION", "")))
    return signed.group(1) if signed else ""


def read_call(environ: WSGIEnvironment) -> Call:
    """What a request asks for."""
    signed = _CREDENTIAL.search(str(environ.get("HTTP_AUTHORIZATION", "")))
    region, name = signed.groups() if signed else ("us-east-1", "")
    service = _SERVICES.get(name, name)
    # WSGI gives bytes as Latin-1 (PEP 3333).
    path = str(environ.get("PATH_INFO", "/")).encode("latin-1").decode("utf-8", "replace")
    target = str(environ.get("HTTP_X_AMZ_TARGET", "")) or _action(environ)
    operation = (
        target.rpartition(".")[2] if target else _operation(service, raw_path(environ), environ)
    )
    return Call(service, region, operation, path, environ)


def _action(environ: WSGIEnvironment) -> str:
    """The operation of a call of the query protocol, whose body names it."""
    if "x-www-form-urlencoded" not in str(environ.get("CONTENT_TYPE", "")):
        return ""
    body = Call("", "", "", "", environ).body().decode("utf-8", "replace")
    return parse_qs(body).get("Action", [""])[0]


def raw_path(environ: WSGIEnvironment) -> str:
    """The path as it was sent: one member of a request may have slashes, then written as %2F."""
    sent = str(environ.get("RAW_URI") or quote(str(environ.get("PATH_INFO", "/")), safe="/%"))
    return sent.partition("?")[0]


def _operation(service: str, path: str, environ: WSGIEnvironment) -> str:
    if not service:
        return ""
    try:
        routes = _routes(service)
    except Exception:  # noqa: BLE001 - a service that botocore doesn't know has no operation
        return ""
    query = set(parse_qs(str(environ.get("QUERY_STRING", "")), keep_blank_values=True))
    fitting = [
        route
        for route in routes
        if route.method == environ.get("REQUEST_METHOD")
        and route.query <= query
        and all(_variable(header) in environ for header in route.headers)
        and route.path.fullmatch(path)
    ]
    best = max(fitting, key=lambda route: (len(route.query), len(route.headers)), default=None)
    return "" if best is None else best.operation


@dataclass(frozen=True)
class _Route:
    operation: str
    method: str
    path: re.Pattern[str]
    query: frozenset[str]
    headers: frozenset[str]


@functools.cache
def _routes(service: str) -> tuple[_Route, ...]:
    model = service_model(service)
    return tuple(_route(model.operation_model(name)) for name in model.operation_names)


def _route(operation: Any) -> _Route:  # noqa: ANN401 - botocore has no types
    path, _, literal = operation.http["requestUri"].partition("?")
    pattern = "".join(
        ".+" if part.endswith("+}") else "[^/]+" if part.startswith("{") else re.escape(part)
        for part in re.split(r"(\{[^}]+\})", path)
    )
    required = operation.input_shape.required_members if operation.input_shape else ()
    members = [operation.input_shape.members[name].serialization for name in required]
    return _Route(
        operation=operation.name,
        method=operation.http["method"],
        path=re.compile(pattern + "/?"),
        query=frozenset(
            {*parse_qs(literal, keep_blank_values=True)}
            | {m["name"] for m in members if m.get("location") == "querystring"}
        ),
        headers=frozenset(m["name"] for m in members if m.get("location") == "header"),
    )


def _variable(header: str) -> str:
    return "HTTP_" + header.upper().replace("-", "_")


def answer_json(
    start: StartResponse, status: int, answer: object, *, fault: str | None = None
) -> Iterable[bytes]:
    """Answer in the JSON protocol."""
    body = json.dumps(answer).encode()
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("Content-Length", str(len(body)))]
    if fault is not None:
        headers.append(("x-amzn-ErrorType", fault))
    start(f"{status} {'OK' if fault is None else 'Refused'}", headers)
    return [body]


def answer_fault(call: Call, start: StartResponse, fault: Fault) -> Iterable[bytes]:
    """Answer no, in the protocol of the called service."""
    call.swallow()
    if call.service in _QUERY:
        error = (
            f"<Error><Code>{fault.code}</Code><Message>{escape(fault.message)}</Message></Error>"
        )
        return answer_xml(start, fault.status, f"<ErrorResponse>{error}</ErrorResponse>")
    if call.service != "s3":
        said = {"__type": fault.code, "message": fault.message, **fault.members}
        return answer_json(start, fault.status, said, fault=fault.code)
    error = f"<Error><Code>{fault.code}</Code><Message>{escape(fault.message)}</Message></Error>"
    answer = answer_xml(start, fault.status, error)
    return [] if call.environ.get("REQUEST_METHOD") == "HEAD" else answer


def answer_xml(start: StartResponse, status: int, element: str) -> Iterable[bytes]:
    """Answer in S3's protocol."""
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n{element}'.encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start(f"{status} {'OK' if status < 300 else 'Refused'}", headers)
    return [body]
