"""The fleet's bucket as a whole: whether it is there, and what is deleted when it is to go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import UnavailableError
from edgefleet_aws.errors import code_of

if TYPE_CHECKING:
    from edgefleet_aws.clients import S3

_MISSING = {"404", "NoSuchBucket"}


def is_there(s3: S3, bucket: str) -> bool:
    """Whether a bucket is there, and ours to use."""
    try:
        s3.head_bucket(Bucket=bucket)
    except Exception as error:
        if code_of(error) in _MISSING:
            return False
        raise
    return True


def empty(s3: S3, bucket: str, prefix: str) -> None:
    """Delete everything below a prefix, older versions too; no error when there is no bucket.

    Raises:
        UnavailableError: S3 didn't delete some of it.
    """
    failed: list[str] = []
    try:
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix)
        for page in pages:
            found = [
                {"Key": one["Key"], "VersionId": one["VersionId"]}
                for one in (*page.get("Versions", ()), *page.get("DeleteMarkers", ()))
            ]
            if found:
                wanted = {"Objects": found, "Quiet": True}
                reply = s3.delete_objects(Bucket=bucket, Delete=wanted)
                failed += [f"{one['Key']}: {one['Code']}" for one in reply.get("Errors", ())]
    except Exception as error:
        if code_of(error) not in _MISSING:
            raise
    if failed:
        raise UnavailableError(
            f"{len(failed)} objects were not deleted, such as {failed[0]}",
            cure="repeat the call; what is deleted already is passed over",
        )


def remove_if_empty(s3: S3, bucket: str) -> None:
    """Delete a bucket; one that still holds something, or is gone, is left alone."""
    try:
        s3.delete_bucket(Bucket=bucket)
    except Exception as error:
        if code_of(error) not in {*_MISSING, "BucketNotEmpty"}:
            raise
