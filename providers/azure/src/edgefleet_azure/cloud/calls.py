"""One request to the mock of Azure, what it is answered, and how Azure's services say no."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

    from edgefleet_azure.cloud.roles import Principal

MAX_DOCUMENT_BYTES = 16 << 20

Body = dict[str, Any] | list[Any] | bytes | Iterable[bytes] | None


class Refused(Exception):  # noqa: N818 - it is the answer to a call, not an error of the mock
    """An answer that says no.

    Args:
        status: of HTTP.
        code: as the vendor writes it.
        message: for people.
        headers: more of the answer's.
        detail: members that the answer has beside code and message.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message or code
        self.headers, self.detail = dict(headers or {}), dict(detail or {})


def throttled(retry_after_s: float | None = 1) -> Refused:
    """The answer to a call that comes too often."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Refused(429, "TooManyRequests", "Rate limit is exceeded. Try again.", headers=headers)


@dataclass
class Reply:
    """What a call is answered.

    Attributes:
        status: of HTTP.
        body: JSON as lists and dicts; bytes as they are; None for none.
        headers: of the answer; a length is added.
    """

    status: int = 200
    body: Body = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Call:
    """One request.

    Attributes:
        method: of HTTP.
        path: of the address, decoded.
        query: its parameters, names in lower case; the first of each.
        headers: names in lower case.
        environ: the bare request.
        base: address of the server that was called, without a slash at the end.
        parts: what stands in the path where the route has a name in braces, decoded.
        principal: whoever calls, by a token; None where none was needed.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    environ: WSGIEnvironment
    base: str
    parts: dict[str, str] = field(default_factory=dict)
    principal: Principal | None = None

    def body(self, most: int = MAX_DOCUMENT_BYTES) -> bytes:
        """The body; it can be asked for again.

        Raises:
            Refused: it is larger than ``most`` bytes.
        """
        stream = self.environ["wsgi.input"]
        data: bytes = stream.read(most + 1)
        if len(data) > most:
            raise Refused(413, "RequestBodyTooLarge", f"The body is larger than {most} bytes.")
        self.environ["wsgi.input"] = io.BytesIO(data)
        return data

    def json(self) -> dict[str, Any]:
        """The body, a JSON object; empty for no body.

        Raises:
            Refused: it is something else.
        """
        try:
            found = json.loads(self.body() or b"{}")
        except ValueError as error:
            raise Refused(400, "InvalidRequestContent", f"The body is no JSON: {error}") from error
        if not isinstance(found, dict):
            raise Refused(400, "InvalidRequestContent", "The body is no JSON object.")
        return found

    def require(self, action: str, scope: str = "/", *, data: bool = False) -> None:
        """Nothing where whoever calls has a role that allows it.

        Args:
            action: such as ``Microsoft.Devices/IotHubs/write``.
            scope: path of the resource.
            data: whether it is a data action.

        Raises:
            Refused: as Azure Resource Manager words it.
        """
        who = self.principal
        if who is None or not who.may(action, scope, data=data):
            name = "" if who is None else who.id
            raise Refused(
                403,
                "AuthorizationFailed",
                f"The client '{name}' with object id '{name}' does not have authorization to "
                f"perform action '{action}' over scope '{scope}' or the scope is invalid. If "
                "access was recently granted, please refresh your credentials.",
            )


def read_call(environ: WSGIEnvironment) -> Call:
    """What a request is."""
    query: dict[str, str] = {}
    for name, value in parse_qsl(str(environ.get("QUERY_STRING", "")), keep_blank_values=True):
        query.setdefault(name.lower(), value)
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
    }
    base = f"{environ['wsgi.url_scheme']}://{headers.get('host', '')}"
    return Call(str(environ["REQUEST_METHOD"]), _path(environ), query, headers, environ, base)


def _path(environ: WSGIEnvironment) -> str:
    raw = str(environ.get("RAW_URI") or environ.get("PATH_INFO", "/")).partition("?")[0]
    return unquote(raw)


# ------------------------------------------------------------------------------- how each says no


def arm_error(refused: Refused) -> Reply:
    """As Azure Resource Manager and most of Azure answer: OData's errors."""
    error = {"code": refused.code, "message": refused.message, **refused.detail}
    return Reply(
        refused.status, {"error": error}, {"x-ms-error-code": refused.code, **refused.headers}
    )


def hub_error(refused: Refused) -> Reply:
    """As IoT Hub's service API answers."""
    body = {
        "Message": f"ErrorCode:{refused.code};{refused.message}",
        "ExceptionMessage": f"Tracking ID:{uuid.uuid4().hex}-G:0-TimeStamp:0",
        **refused.detail,
    }
    return Reply(refused.status, body, {"iothub-errorcode": refused.code, **refused.headers})


def blob_error(refused: Refused) -> Reply:
    """As Blob storage answers: XML, and the code in a header, which is all that HEAD has."""
    detail = "".join(f"<{name}>{escape(str(v))}</{name}>" for name, v in refused.detail.items())
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message>{detail}"
        "</Error>"
    ).encode()
    headers = {
        "Content-Type": "application/xml",
        "x-ms-error-code": refused.code,
        **refused.headers,
    }
    return Reply(refused.status, b"" if refused.status == 304 else body, headers)
