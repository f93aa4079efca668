"""An S3 object as a stream that survives lost connections."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, ClassVar

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from edgefleet.errors import IntegrityError
from edgefleet.interfaces.resuming import ResumingStream
from edgefleet_aws.errors import code_of, translate

if TYPE_CHECKING:
    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.resuming import Body
    from edgefleet_aws.clients import S3


class ObjectStream(ResumingStream):
    """An object's bytes from an offset on.

    Args:
        s3: client.
        at: bucket and key.
        offset: first byte to read; the object's size for none.

    Raises:
        ClientError: when made: there is no such object, or it may not be read.
    """

    store: ClassVar[str] = "S3"
    lost: ClassVar[tuple[type[Exception], ...]] = (BotoCoreError, HTTPError, OSError)

    def __init__(self, s3: S3, at: dict[str, object], offset: int) -> None:
        self._s3, self._at = s3, at
        super().__init__(offset)

    def _fetch(self, offset: int, tag: str | None) -> tuple[Body, str | None]:
        wanted: dict[str, object] = {"Range": f"bytes={offset}-"} if offset else {}
        if tag is not None:
            wanted["IfMatch"] = tag
        try:
            reply = self._s3.get_object(**self._at, **wanted)
        except ClientError as error:
            if code_of(error) == "InvalidRange":
                return io.BytesIO(), tag  # the offset is the end
            if tag is not None and code_of(error) == "PreconditionFailed":
                raise IntegrityError("the object was replaced while it was read") from error
            raise
        return reply["Body"], reply["ETag"]

    def _is_refusal(self, error: Exception) -> bool:
        return False

    def _meaning(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)
