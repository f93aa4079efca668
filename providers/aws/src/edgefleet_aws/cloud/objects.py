"""What moto's S3 does otherwise than AWS's, mended: uploads in parts.

An upload begun with SHA-256 lists each part's checksum, and its completion must name them; a part
of an upload that isn't there is refused.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

from moto.s3.models import s3_backends

from edgefleet_aws.cloud.calls import Call, Fault, answer_xml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse

ACCOUNT = "123456789012"  # moto's
PAGE = 1000
_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_MENDED = {"UploadPart", "ListParts", "CompleteMultipartUpload"}


class Objects:
    """Answers before moto where moto does otherwise, and leaves the rest to it."""

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes] | None:
        """Answer a listing of parts; hold the rest to what AWS holds them to.

        Raises:
            Fault: the upload isn't there, or its completion lacks checksums.
        """
        if call.operation not in _MENDED:
            return None
        query = parse_qs(str(call.environ.get("QUERY_STRING", "")))
        name, _, key = call.path[1:].partition("/")
        bucket = s3_backends[ACCOUNT]["aws"].buckets.get(name)
        if bucket is None:
            return None
        upload = bucket.multiparts.get(query["uploadId"][0])
        if upload is None and call.operation != "CompleteMultipartUpload":
            raise Fault("NoSuchUpload", "The specified upload does not exist.", 404)
        if upload is None or upload.metadata.get("x-amz-checksum-algorithm") != "SHA256":
            return None
        if call.operation == "ListParts":
            return answer_xml(start, 200, _listing(name, key, upload, query))
        if call.operation == "CompleteMultipartUpload":
            _require_checksums(call.body(), upload)
        return None


def _listing(bucket: str, key: str, upload: Any, query: dict[str, list[str]]) -> str:  # noqa: ANN401
    after = int(query.get("part-number-marker", ["0"])[0])
    most = int(query.get("max-parts", [str(PAGE)])[0])
    numbers = sorted(number for number in upload.parts if number > after)
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber>"
        f"<LastModified>{upload.parts[number].last_modified_ISO8601}</LastModified>"
        f"<ETag>{escape(upload.parts[number].etag)}</ETag>"
        f"<ChecksumSHA256>{_checksum(upload.parts[number])}</ChecksumSHA256>"
        f"<Size>{upload.parts[number].size}</Size></Part>"
        for number in numbers[:most]
    )
    return (
        f'<ListPartsResult xmlns="{_SPACE}"><Bucket>{escape(bucket)}</Bucket>'
        f"<Key>{escape(key)}</Key><UploadId>{escape(upload.id)}</UploadId>"
        f"<PartNumberMarker>{after}</PartNumberMarker>"
        f"<NextPartNumberMarker>{(numbers[:most] or [0])[-1]}</NextPartNumberMarker>"
        f"<MaxParts>{most}</MaxParts><IsTruncated>{str(len(numbers) > most).lower()}</IsTruncated>"
        f"<ChecksumAlgorithm>SHA256</ChecksumAlgorithm>{parts}</ListPartsResult>"
    )


def _require_checksums(body: bytes, upload: Any) -> None:  # noqa: ANN401 - moto's own class
    for part in ET.fromstring(body).iter(f"{{{_SPACE}}}Part"):  # noqa: S314 - from a test's client
        number = int(part.findtext(f"{{{_SPACE}}}PartNumber", "0"))
        given = part.findtext(f"{{{_SPACE}}}ChecksumSHA256")
        if given is None:
            raise Fault(
                "InvalidRequest",
                "The upload was created using a sha256 checksum. The complete request must include "
                f"the checksum for each part. It was missing for part {number} in the request.",
            )
        there = upload.parts.get(number)
        if there is not None and given != _checksum(there):
            raise Fault("InvalidPart", f"part {number} has another checksum")


def _checksum(part: Any) -> str:  # noqa: ANN401 - moto's own class
    return base64.b64encode(hashlib.sha256(part.value).digest()).decode("ascii")
