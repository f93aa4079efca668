"""One request to a mock cloud, what it is answered, and an answer that says no."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

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
    """One request; a vendor's own kind knows who calls, too.

    Attributes:
        method: of HTTP.
        path: of the address, decoded.
        query: its parameters; the first of each.
        headers: names in lower case.
        environ: the bare request.
        base: address of the server that was called, without a slash at the end.
        parts: what stands in the path where the route has a name in braces, decoded.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    environ: WSGIEnvironment
    base: str
    parts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, environ: WSGIEnvironment) -> Self:
        """What a request is."""
        query: dict[str, str] = {}
        for name, value in parse_qsl(str(environ.get("QUERY_STRING", "")), keep_blank_values=True):
            query.setdefault(cls.parameter(name), value)
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in {"CONTENT_TYPE", "CONTENT_LENGTH"}
        }
        base = f"{environ['wsgi.url_scheme']}://{headers.get('host', '')}"
        method = str(environ["REQUEST_METHOD"])
        return cls(method, unquote(raw_path(environ)), query, headers, environ, base)

    @staticmethod
    def parameter(name: str) -> str:
        """How the name of a parameter is kept: vendors whose case doesn't count say so."""
        return name

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


def raw_path(environ: WSGIEnvironment) -> str:
    """The path of a request's address as it came, percent signs included."""
    return str(environ.get("RAW_URI") or environ.get("PATH_INFO", "/")).partition("?")[0]
