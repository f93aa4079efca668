"""An S3 object as a stream that survives lost connections."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from edgefleet.errors import IntegrityError, UnavailableError
from edgefleet_aws.errors import code_of, translate

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from edgefleet_aws.clients import S3

MAX_LOSSES = 5  # of the connection in a row, with no byte between


class ObjectStream(io.RawIOBase):
    """An object's bytes from an offset on. Where the connection is lost it goes on, at that byte.

    Args:
        s3: client.
        at: bucket and key.
        offset: first byte to read; the object's size for none.

    Raises:
        ClientError: when made: there is no such object, or it may not be read.
        UnavailableError: while reading: the connection was lost too often.
        IntegrityError: while reading: the object was replaced by another one.
    """

    def __init__(self, s3: S3, at: dict[str, object], offset: int) -> None:
        super().__init__()
        self._s3, self._at, self._next = s3, at, offset
        self._tag: str | None = None
        self._body: Any = None
        self._connect()

    def _connect(self) -> None:
        wanted: dict[str, object] = {"Range": f"bytes={self._next}-"} if self._next else {}
        if self._tag is not None:
            wanted["IfMatch"] = self._tag
        try:
            reply = self._s3.get_object(**self._at, **wanted)
        except ClientError as error:
            if code_of(error) != "InvalidRange":
                raise
            self._body = io.BytesIO()  # the offset is the end
            return
        self._body, self._tag = reply["Body"], reply["ETag"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        losses = 0
        while True:
            try:
                if self._body is None:
                    self._connect()
                data = self._body.read(len(view))
            except (BotoCoreError, HTTPError, OSError) as error:
                losses += 1
                self._drop()
                if losses >= MAX_LOSSES:
                    raise UnavailableError(
                        f"the connection to S3 was lost {losses} times in a row: {error}",
                        cure="check the network, then repeat the call",
                    ) from error
            except ClientError as error:
                if code_of(error) == "PreconditionFailed":
                    raise IntegrityError("the object was replaced while it was read") from error
                raise translate(error) or UnavailableError(str(error)) from error
            else:
                view[: len(data)] = data
                self._next += len(data)
                return len(data)

    def _drop(self) -> None:
        if self._body is not None:
            self._body.close()
        self._body = None

    def close(self) -> None:
        self._drop()
        super().close()
