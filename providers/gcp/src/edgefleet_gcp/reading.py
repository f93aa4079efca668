"""An object of Cloud Storage as a stream that survives lost connections and ended tokens.

One state of the object is read to its end: every request after the first names its generation
(https://cloud.google.com/storage/docs/generations-preconditions).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar

from edgefleet.errors import IntegrityError
from edgefleet.interfaces.resuming import ResumingStream
from edgefleet_gcp.answers import status_of
from edgefleet_gcp.errors import translate
from edgefleet_gcp.retries import LOST

if TYPE_CHECKING:
    import requests

    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.resuming import Body
    from edgefleet_gcp.clients import Clients


class ObjectStream(ResumingStream):
    """An object's bytes from an offset on.

    Args:
        clients: to reach Cloud Storage with.
        name: of the object.
        offset: first byte to read; the object's size for none.

    Raises:
        GoogleAPICallError: when made: there is no such object, or it may not be read.
    """

    store: ClassVar[str] = "Cloud Storage"
    lost: ClassVar[tuple[type[Exception], ...]] = (*LOST, OSError)

    def __init__(self, clients: Clients, name: str, offset: int) -> None:
        self._clients, self._url = clients, f"{clients.object_url(name)}?alt=media"
        super().__init__(offset)

    def _fetch(self, offset: int, tag: str | None) -> tuple[Body, str | None]:
        # Never compressed on the way: ranges count bytes as they are stored.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        url = self._url if tag is None else f"{self._url}&ifGenerationMatch={tag}"
        call = self._clients.retries(self._clients.call)
        try:
            answer = call("GET", url, headers=headers, stream=True)
        except Exception as error:
            if status_of(error) == 416:
                return io.BytesIO(), tag  # the offset is the end
            if tag is not None and status_of(error) in {404, 412}:
                raise IntegrityError("the object was replaced while it was read") from error
            raise
        return _Raw(answer), answer.headers.get("x-goog-generation")

    def _is_refusal(self, error: Exception) -> bool:
        return False

    def _meaning(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)


class _Raw:
    """An answer's body, as it comes, which must be as long as its header says."""

    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer
        self._left = int(answer.headers.get("Content-Length", -1))

    def read(self, size: int, /) -> bytes:
        if size == 0 or self._left == 0:
            return b""
        data: bytes = self._answer.raw.read(size)
        if not data and self._left > 0:
            raise ConnectionResetError(f"{self._left} bytes are missing")
        if self._left > 0:
            self._left -= len(data)
        return data

    def close(self) -> None:
        self._answer.close()
