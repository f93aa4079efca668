"""Cloud Storage's XML API, as devices use it: read an object, create one.

https://cloud.google.com/storage/docs/xml-api/overview. What it refuses, it says in XML.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_gcp.cloud.calls import Call, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet_gcp.cloud.storage import Storage

_OBJECT = "/{bucket}/{object*}"
# https://cloud.google.com/storage/docs/xml-api/reference-status
_CODES = {
    400: "InvalidArgument",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


class XmlApi:
    """The XML API of the same storage.

    Args:
        storage: keeps objects, and all rules.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def routes(self) -> Sequence[Route]:
        """What it answers."""
        return (
            Route("storage.XmlGetObject", "GET", _OBJECT, _in_xml(self._storage.read)),
            Route("storage.XmlPutObject", "PUT", _OBJECT, _in_xml(self._put)),
        )

    def _put(self, call: Call) -> Reply:
        told = {"name": call.parts["object"]}
        if "content-md5" in call.headers:
            told["md5Hash"] = call.headers["content-md5"]
        if "x-goog-if-generation-match" in call.headers:
            call.query["ifGenerationMatch"] = call.headers["x-goog-if-generation-match"]
        found = self._storage.insert(call, told, call.headers.get("content-type", ""))
        headers = {"ETag": f'"{found["etag"]}"', "x-goog-generation": str(found["generation"])}
        return Reply(headers=headers, body=b"")


def _in_xml(handle: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
    """The same, refusing as the XML API does."""

    def answer(call: Call) -> Reply:
        try:
            return handle(call)
        except Refused as refused:
            code = _CODES.get(refused.status, "InternalError")
            if refused.status == 404 and "bucket" in refused.message:
                code = "NoSuchBucket"
            body = (
                f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
                f"<Message>{code}</Message><Details>{escape(refused.message)}</Details></Error>"
            ).encode()
            headers = {"Content-Type": "application/xml; charset=UTF-8", **refused.headers}
            return Reply(refused.status, body, headers)

    return answer
