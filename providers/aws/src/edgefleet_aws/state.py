"""The state store: one S3 object a document, changed by conditional writes.

Rules kept here:

- S3 compares, never we: ``If-None-Match: *`` to create, ``If-Match`` to replace and to delete
  (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html).
- The tag of a document is its ETag. The same bytes written again may have the same tag, so a
  document that changed and changed back counts as unchanged.
- Each write marks the object anew, so that a write whose answer was lost and that boto3 repeated is
  known as done. So is a deletion: what is gone at a repeated try was deleted at the one whose
  answer was lost.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from edgefleet.interfaces.state import StateStore, Stored
from edgefleet_aws.errors import code_of
from edgefleet_aws.repeats import maybe_done_before
from edgefleet_aws.service import AwsService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict"}
_MISSING = {"NoSuchKey", "404"}
_MARK = "edgefleet-write"


class S3StateStore(AwsService, StateStore):
    """Documents below ``s3://BUCKET/PREFIX/state/``, for any number of operators.

    Args:
        clients: to reach S3 with; closed with the store.
        settings: bucket and prefix.
    """

    needs = ("state",)
    longest_pause_s = 0.2

    def __init__(self, clients: Clients, settings: AwsSettings) -> None:
        self._clients = clients
        self._settings = settings
        self._bucket = settings.bucket
        self._root = f"{settings.prefix}/state/"

    def _read(self, key: str) -> Stored | None:
        try:
            reply = self._clients.s3.get_object(Bucket=self._bucket, Key=self._root + key)
        except Exception as error:
            if code_of(error) in _MISSING:
                return None
            raise
        with reply["Body"] as body:
            return Stored(data=body.read(), tag=reply["ETag"])

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if expect is None else {"IfMatch": expect}
        mark = {_MARK: uuid.uuid4().hex}
        try:
            reply = self._clients.s3.put_object(
                Bucket=self._bucket, Key=self._root + key, Body=data, Metadata=mark, **condition
            )
        except Exception as error:
            if code_of(error) in _CHANGED and maybe_done_before(error):
                tag = self._tag_of_own(key, mark)
                if tag is not None:
                    return tag
            self._raise_conflict(key, error)
            raise
        return str(reply["ETag"])

    def _delete(self, key: str, expect: str) -> None:
        try:
            # A missing object would be deleted with success where a store doesn't compare.
            self._clients.s3.head_object(Bucket=self._bucket, Key=self._root + key)
            self._clients.s3.delete_object(
                Bucket=self._bucket, Key=self._root + key, IfMatch=expect
            )
        except Exception as error:
            if code_of(error) in _MISSING and maybe_done_before(error):
                return
            self._raise_conflict(key, error)
            raise

    def _keys(self, prefix: str) -> Iterator[str]:
        pages = self._clients.s3.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=self._root + prefix):
            for item in page.get("Contents", ()):
                yield str(item["Key"]).removeprefix(self._root)

    def _tag_of_own(self, key: str, mark: dict[str, str]) -> str | None:
        """The tag of a document that lies there by the very write that has this mark."""
        try:
            found = self._clients.s3.head_object(Bucket=self._bucket, Key=self._root + key)
        except Exception as error:
            if code_of(error) in _MISSING:
                return None
            raise
        return str(found["ETag"]) if found["Metadata"] == mark else None

    def _raise_conflict(self, key: str, error: Exception) -> None:
        """Raise what a refused condition means; nothing for other errors."""
        code = code_of(error)
        if code in _CHANGED | _MISSING:
            gone = code in _MISSING
            what = "is gone" if gone else "exists already, or was changed by somebody else"
            raise self._conflict(key, what) from error
