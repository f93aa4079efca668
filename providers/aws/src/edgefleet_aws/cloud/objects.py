"""What moto's S3 does otherwise than AWS's, mended."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from moto.s3.models import s3_backends

from edgefleet_aws.cloud.calls import Call, Fault

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse

ACCOUNT = "123456789012"  # moto's


class Objects:
    """Answers before moto where moto would fall over: parts of an upload that isn't there."""

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes] | None:
        """Leave to moto what it does right.

        Raises:
            Fault: the upload isn't there.
        """
        if call.operation == "UploadPart":
            query = parse_qs(str(call.environ.get("QUERY_STRING", "")))
            bucket = s3_backends[ACCOUNT]["aws"].buckets.get(call.path.split("/")[1])
            if bucket is not None and query["uploadId"][0] not in bucket.multiparts:
                raise Fault("NoSuchUpload", "The specified upload does not exist.", 404)
        return None
