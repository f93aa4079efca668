"""Conditional headers, ranges and checksums of Blob storage.

https://learn.microsoft.com/rest/api/storageservices/specifying-conditional-headers-for-blob-service-operations
"""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from edgefleet.testing.cloud.calls import Refused

if TYPE_CHECKING:
    from edgefleet_azure.cloud.accounts import Blob, Content
    from edgefleet_azure.cloud.calls import Call

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def check_read(call: Call, blob: Blob) -> None:
    """Nothing where a read's conditions hold.

    Raises:
        Refused: 304 or 412.
    """
    match, none = call.headers.get("if-match"), call.headers.get("if-none-match")
    if match is not None and not _same(match, blob):
        raise not_met()
    if none is not None and _same(none, blob):
        raise Refused(304, "ConditionNotMet", headers={"ETag": blob.etag})
    _check_times(call, blob, missed=304)


def check_write(call: Call, blob: Blob | None) -> None:
    """Nothing where a write's conditions hold; None for a blob that isn't there.

    Raises:
        Refused: 409 or 412.
    """
    match, none = call.headers.get("if-match"), call.headers.get("if-none-match")
    if match is not None and (blob is None or not _same(match, blob)):
        raise not_met()
    if none is not None and blob is not None and _same(none, blob):
        if none.strip() == "*":
            raise Refused(409, "BlobAlreadyExists", "The specified blob already exists.")
        raise not_met()
    if blob is not None:
        _check_times(call, blob, missed=412)


def not_met() -> Refused:
    """A condition doesn't hold."""
    return Refused(
        412,
        "ConditionNotMet",
        "The condition specified using HTTP conditional header(s) is not met.",
    )


def wanted(call: Call, size: int) -> tuple[int, int] | None:
    """First and last byte that a call asks for; None for all.

    Raises:
        Refused: it begins behind the end.
    """
    text = call.headers.get("x-ms-range") or call.headers.get("range")
    found = _RANGE.fullmatch(text.strip()) if text else None
    if found is None:
        return None
    first = int(found.group(1))
    last = min(int(found.group(2)) if found.group(2) else size - 1, size - 1)
    if first >= size or last < first:
        raise Refused(
            416,
            "InvalidRange",
            "The range specified is invalid for the current size of the resource.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return first, last


def check_bytes(call: Call, content: Content) -> None:
    """Nothing where bytes are those that their sender summed up.

    Raises:
        Refused: they aren't, or the sum is one that the mock doesn't know.
    """
    told = call.headers.get("content-md5")
    if told is not None and told != content.md5:
        raise Refused(
            400,
            "Md5Mismatch",
            "The MD5 value specified in the request did not match the MD5 value calculated by "
            "the server.",
            detail={"UserSpecifiedMd5": told, "ServerCalculatedMd5": content.md5},
        )
    if "x-ms-content-crc64" in call.headers or "x-ms-structured-body" in call.headers:
        raise Refused(501, "NotImplemented", "The mock sums up by MD5 only.")


def check_length(call: Call, content: Content) -> None:
    """Nothing where a length was told, and is right.

    Raises:
        Refused: it isn't.
    """
    told = call.headers.get("content-length", "")
    if not told.isdigit():
        raise Refused(411, "MissingContentLengthHeader", "The Content-Length header is missing.")
    if int(told) != content.size:
        raise Refused(400, "InvalidInput", "One of the request inputs is not valid.")


def _same(condition: str, blob: Blob) -> bool:
    """Whether a condition's ETag, or one of them, is a blob's; quotes don't count."""
    tags = [tag.strip() for tag in condition.split(",")]
    return "*" in tags or any(tag.strip('"') == blob.etag.strip('"') for tag in tags)


def _check_times(call: Call, blob: Blob, *, missed: int) -> None:
    since, before = call.headers.get("if-modified-since"), call.headers.get("if-unmodified-since")
    modified = int(blob.modified)
    if since is not None and modified <= _seconds(since):
        raise Refused(missed, "ConditionNotMet", headers={"ETag": blob.etag})
    if before is not None and modified > _seconds(before):
        raise not_met()


def _seconds(date: str) -> float:
    try:
        return parsedate_to_datetime(date).astimezone(UTC).timestamp()
    except ValueError as error:
        raise Refused(
            400, "InvalidHeaderValue", "The value for one of the HTTP headers is not valid."
        ) from error
