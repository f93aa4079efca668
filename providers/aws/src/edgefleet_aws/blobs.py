"""The blob store: bytes by digest in S3 or any store that speaks its protocol.

Rules kept here:

- A blob appears when it is whole and its bytes have hashed to its name, and never before: S3 shows
  an object when its one request, or the completion of its parts, has succeeded. Nobody overwrites
  it (``If-None-Match: *``).
- Larger blobs go in parts. An upload that was interrupted goes on: parts whose checksum is what the
  source holds are not sent again. S3's checksum of the whole is one of parts' checksums, so it
  guards parts only; the digest is ours.

Uploads that nobody goes on with keep their parts, and cost: give the bucket a lifecycle rule that
ends them (``AbortIncompleteMultipartUpload``, README).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NamedTuple

from edgefleet.errors import IntegrityError
from edgefleet.interfaces.object_blobs import ObjectBlobStore
from edgefleet.interfaces.sending import send_in_parts, size_of_parts
from edgefleet.protocol.digest import blob_path
from edgefleet_aws.backend import AwsBackend
from edgefleet_aws.errors import code_of
from edgefleet_aws.reading import ObjectStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet.interfaces.sending import Told
    from edgefleet.protocol.bundle import Descriptor
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

MAX_PARTS = 10_000  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_THERE = {"PreconditionFailed"}
_ENDED = {"NoSuchUpload"}


class _Part(NamedTuple):
    """A part that S3 holds, as a completion names it."""

    number: int
    tag: str
    size: int
    checksum: str | None

    def holds(self, data: bytes, checksum: str) -> bool:
        """Whether these are its bytes. Stores that list no SHA-256 have a part's MD5 as its tag."""
        if self.size != len(data):
            return False
        if self.checksum is not None:
            return self.checksum == checksum
        return self.tag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()

    def named(self) -> dict[str, Any]:
        named: dict[str, Any] = {"PartNumber": self.number, "ETag": self.tag}
        return named if self.checksum is None else {**named, "ChecksumSHA256": self.checksum}


class S3BlobStore(AwsBackend, ObjectBlobStore):
    """Blobs below ``s3://BUCKET/PREFIX/blobs/sha256/``.

    Args:
        clients: to reach S3 with; closed with the store.
        settings: bucket, prefix, size of parts.
    """

    where: ClassVar[str] = "in S3"
    ended_cure: ClassVar[str] = "look for a lifecycle rule that ends uploads too soon, push again"

    def __init__(self, clients: Clients, settings: AwsSettings) -> None:
        super().__init__((settings.root, *settings.mirrors), whole_bytes=settings.part_bytes)
        self._clients = clients
        self._bucket = settings.bucket
        self._prefix = settings.prefix
        self._part_bytes = settings.part_bytes

    def _at(self, digest: str) -> dict[str, object]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}/{blob_path(digest)}"}

    def _is_missing(self, error: Exception) -> bool:
        return code_of(error) in {"404", "NoSuchKey"}

    def _stored_size(self, digest: str) -> int:
        return int(self._clients.s3.head_object(**self._at(digest))["ContentLength"])

    def _stream(self, digest: str, offset: int) -> ObjectStream:
        return ObjectStream(self._clients.s3, self._at(digest), offset)

    def _send(self, source: Callable[[], BinaryIO], descriptor: Descriptor, told: Told) -> bool:
        part_bytes = size_of_parts(descriptor, wanted=self._part_bytes, most=MAX_PARTS)
        upload = _Upload(self._clients, self._at(descriptor.digest), part_bytes)
        with source() as stream:
            return upload.send(stream, descriptor, told)

    def _put_whole(self, descriptor: Descriptor, data: bytes) -> None:
        with contextlib.suppress(_There), _already_there():
            self._clients.s3.put_object(
                **self._at(descriptor.digest),
                Body=data,
                IfNoneMatch="*",
                ChecksumSHA256=_sha256(data),
            )


class _There(Exception):  # noqa: N818 - no failure: the blob is there
    """Somebody else has stored it meanwhile."""


@contextlib.contextmanager
def _already_there() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if code_of(error) in _THERE:
            raise _There from error
        raise


class _Upload:
    """One upload in parts: a new one, or the newest that was begun for the same blob.

    Two that go on with the same upload send the same bytes under the same numbers; one completes
    it, and the other finds the blob there.
    """

    def __init__(self, clients: Clients, at: dict[str, object], part_bytes: int) -> None:
        self._s3 = clients.s3
        self._at = at
        self._part_bytes = part_bytes
        begun = self._begun()
        upload = begun or self._s3.create_multipart_upload(**at, ChecksumAlgorithm="SHA256")
        self._id = str(upload["UploadId"])
        # One that was begun with checksums must name them all at its completion.
        self._checked = begun is None or begun.get("ChecksumAlgorithm") == "SHA256"
        self._there = {part.number: part for part in self._parts()} if begun else {}

    def _begun(self) -> dict[str, Any] | None:
        pages = self._s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._at["Bucket"], Prefix=self._at["Key"]
        )
        begun = [one for page in pages for one in page.get("Uploads", ())]
        return max(begun, key=lambda one: (one["Initiated"], one["UploadId"]), default=None)

    def _parts(self) -> Iterator[_Part]:
        try:
            for page in self._s3.get_paginator("list_parts").paginate(
                **self._at, UploadId=self._id
            ):
                for part in page.get("Parts", ()):
                    yield _Part(
                        part["PartNumber"], part["ETag"], part["Size"], part.get("ChecksumSHA256")
                    )
        except Exception as error:
            if code_of(error) not in _ENDED:
                raise

    def send(self, stream: BinaryIO, descriptor: Descriptor, told: Told) -> bool:
        """Send what is missing and complete the upload; False where somebody ended it.

        Raises:
            IntegrityError: the source holds other bytes; the upload is given up.
        """
        try:
            parts = send_in_parts(stream, descriptor, self._part_bytes, self._send, told)
            with contextlib.suppress(_There), _already_there():
                self._complete(parts)
                return True
        except IntegrityError:
            self._give_up()
            raise
        except Exception as error:
            if code_of(error) in _ENDED:
                return False
            raise
        self._give_up()
        return True

    def _send(self, number: int, data: bytes) -> _Part:
        checksum = _sha256(data)
        there = self._there.get(number)
        if there is not None and there.holds(data, checksum):
            return there
        guard = {"ChecksumSHA256": checksum} if self._checked else {}
        reply = self._s3.upload_part(
            **self._at, UploadId=self._id, PartNumber=number, Body=data, **guard
        )
        return _Part(number, reply["ETag"], len(data), checksum if self._checked else None)

    def _complete(self, parts: list[_Part]) -> None:
        self._s3.complete_multipart_upload(
            **self._at,
            UploadId=self._id,
            MultipartUpload={"Parts": [part.named() for part in parts]},
            IfNoneMatch="*",
        )

    def _give_up(self) -> None:
        try:
            self._s3.abort_multipart_upload(**self._at, UploadId=self._id)
        except Exception as error:
            if code_of(error) not in _ENDED:
                raise


def _sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode("ascii")
