"""Cloud Storage's JSON API in front of the emulator: what the emulator lets pass is refused here.

Rules, each with its source in ``mock_rules.md``: tokens and permissions; preconditions, compared
and done in one step; checksums; resumable uploads; ranges; pages of listings; one write a second
for an object, where that is asked for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from contextlib import suppress
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_gcp.checksums import Crc32c
from edgefleet_gcp.cloud import preconditions
from edgefleet_gcp.cloud.calls import Call, Route
from edgefleet_gcp.cloud.listing import MAX_RESULTS, page_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgefleet_gcp.cloud.emulator import Emulator
    from edgefleet_gcp.cloud.identities import Identities
    from edgefleet_gcp.cloud.sessions import Session, Sessions

MAX_BODY_BYTES = 1 << 30
PIECE_BYTES = 64 << 10  # of a download
MAX_NAME_BYTES = 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_BUCKET = "/storage/v1/b/{bucket}"
_OBJECT = f"{_BUCKET}/o/{{object*}}"
_UPLOAD = "/upload/storage/v1/b/{bucket}/o"


class Storage:
    """Cloud Storage.

    Args:
        emulator: keeps objects.
        sessions: uploads that are under way.
        identities: whose permissions the bucket tells of.

    Attributes:
        writes_per_second: how often one object may be written; None for as often as one likes.
        page: entries of a listing that are given at once.
    """

    def __init__(self, emulator: Emulator, sessions: Sessions, identities: Identities) -> None:
        self._emulator = emulator
        self._sessions = sessions
        self._identities = identities
        self._lock = threading.RLock()
        self._written: dict[tuple[str, str], float] = {}
        self.writes_per_second: float | None = None
        self.page = MAX_RESULTS

    @property
    def routes(self) -> Sequence[Route]:
        """What it answers."""
        media = {"alt": "media"}
        return (
            Route(
                "storage.TestIamPermissions", "GET", f"{_BUCKET}/iam/testPermissions", self._test
            ),
            Route("storage.GetBucket", "GET", _BUCKET, self._bucket),
            Route("storage.ListObjects", "GET", f"{_BUCKET}/o", self._list),
            Route("storage.ReadObject", "GET", _OBJECT, self.read, query=media),
            Route("storage.ReadObject", "GET", f"/download{_OBJECT}", self.read),
            Route("storage.GetObject", "GET", _OBJECT, self._get),
            Route("storage.DeleteObject", "DELETE", _OBJECT, self._delete),
            Route(
                "storage.InsertObject",
                "POST",
                _UPLOAD,
                self._multipart,
                query={"uploadType": "multipart"},
            ),
            Route(
                "storage.InsertObject", "POST", _UPLOAD, self._media, query={"uploadType": "media"}
            ),
            Route(
                "storage.BeginUpload",
                "POST",
                _UPLOAD,
                self._begin,
                query={"uploadType": "resumable"},
            ),
            Route("storage.UploadChunk", "PUT", _UPLOAD, self._chunk, open=True),
            Route("storage.EndUpload", "DELETE", _UPLOAD, self._cancel, open=True),
        )

    # Buckets

    def _bucket(self, call: Call) -> Reply:
        bucket = call.parts["bucket"]
        call.require("storage.buckets.get", _bucket_name(bucket), shown="the bucket")
        self._need_bucket(bucket)
        return Reply(body=self._emulator.call("GET", f"/storage/v1/b/{bucket}").json())

    def _test(self, call: Call) -> Reply:
        bucket = call.parts["bucket"]
        self._need_bucket(bucket)
        if call.account is None:
            raise Refused(401, "required", "Anonymous callers have no permissions.")
        asked = [
            part.partition("=")[2]
            for part in str(call.environ.get("QUERY_STRING", "")).split("&")
            if part.startswith("permissions=")
        ]
        held = [one for one in asked if call.account.has(one, _bucket_name(bucket))]
        return Reply(body={"kind": "storage#testIamPermissionsResponse", "permissions": held})

    def _list(self, call: Call) -> Reply:
        bucket = call.parts["bucket"]
        call.require("storage.objects.list", _bucket_name(bucket), shown="the bucket")
        self._need_bucket(bucket)
        query = {key: call.query[key] for key in ("prefix", "delimiter") if key in call.query}
        everything = self._emulator.listing(bucket, **query)
        return Reply(body=page_of(everything, call.query, most=self.page))

    # Objects

    def _get(self, call: Call) -> Reply:
        return Reply(body=self._there(call, call.base))

    def read(self, call: Call) -> Reply:
        """An object's bytes, or a range of them."""
        with self._lock:
            found = self._there(call, call.base)
            data = self._emulator.content(found["bucket"], found["name"]).body
        headers = {
            "Content-Type": str(found.get("contentType", "application/octet-stream")),
            "ETag": f'"{found["etag"]}"',
            "X-Goog-Generation": str(found["generation"]),
            "X-Goog-Metageneration": str(found["metageneration"]),
            "X-Goog-Hash": f"crc32c={found['crc32c']},md5={found['md5Hash']}",
        }
        status, wanted = 200, _RANGE.fullmatch(call.headers.get("range", ""))
        if wanted is not None:
            first = int(wanted[1])
            last = min(int(wanted[2] or len(data)), len(data) - 1)
            if first > last:
                told = {"Content-Range": f"bytes */{len(data)}"}
                raise Refused(416, "requestedRangeNotSatisfiable", "Not satisfiable.", headers=told)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            status, data = 206, data[first : last + 1]
        headers["Content-Length"] = str(len(data))
        return Reply(status, _pieces(data), headers)

    def _delete(self, call: Call) -> Reply:
        with self._lock:
            found = self._there(call, call.base, permission="storage.objects.delete")
            self._emulator.delete(found["bucket"], found["name"])
        return Reply(204)

    def _there(
        self, call: Call, base: str, *, permission: str = "storage.objects.get"
    ) -> dict[str, Any]:
        """The object that a call is about, where its caller may and its preconditions are met."""
        bucket, name = call.parts["bucket"], call.parts["object"]
        call.require(permission, _object_name(bucket, name), shown=f"{bucket}/{name}")
        self._need_bucket(bucket)
        found = self._emulator.resource(bucket, name)
        asked = call.query.get("generation")
        if found is None or asked not in {None, str(found["generation"])}:
            raise Refused(404, "notFound", f"No such object: {bucket}/{name}")
        reading = permission == "storage.objects.get"
        preconditions.check(preconditions.read(call.query), found, reading=reading)
        return _shown(found, base)

    # Writing

    def _media(self, call: Call) -> Reply:
        kind = call.headers.get("content-type", "application/octet-stream")
        return Reply(body=self.insert(call, {}, kind))

    def _multipart(self, call: Call) -> Reply:
        metadata, data, kind = _parts(call)
        return Reply(body=self.insert(call, metadata, kind, data))

    def insert(
        self, call: Call, metadata: dict[str, Any], kind: str, data: bytes | None = None
    ) -> dict[str, Any]:
        """Store an object whole, and give its resource.

        Args:
            call: asks for it.
            metadata: of the object.
            kind: its media type, where the metadata names none.
            data: its bytes; None for the body of the call.
        """
        bucket, name = call.parts["bucket"], call.query.get("name") or metadata.get("name")
        self._may_write(call, bucket, name)
        with self._lock:
            found = self._write(
                bucket,
                str(name),
                call.body(MAX_BODY_BYTES) if data is None else data,
                metadata,
                kind,
                wanted=preconditions.read(call.query),
                may_replace=lambda: self._may_replace(call, bucket, str(name)),
            )
        return _shown(found, call.base)

    def _begin(self, call: Call) -> Reply:
        metadata = call.json()
        bucket, name = call.parts["bucket"], call.query.get("name") or metadata.get("name")
        self._may_write(call, bucket, name)
        wanted = preconditions.read(call.query)
        preconditions.check(wanted, self._emulator.resource(bucket, str(name)), reading=False)
        session = self._sessions.begin(
            bucket,
            str(name),
            kind=call.headers.get("x-upload-content-type", "application/octet-stream"),
            metadata=metadata,
            wanted=wanted,
            email=call.account.email if call.account else "",
        )
        if "x-upload-content-length" in call.headers:
            session.total = int(call.headers["x-upload-content-length"])
        query = f"uploadType=resumable&upload_id={session.id}"
        at = f"{call.base}/upload/storage/v1/b/{bucket}/o?{query}"
        return Reply(headers={"Location": at, "X-GUploader-UploadID": session.id})

    def _chunk(self, call: Call) -> Reply:
        with self._lock:
            session = self._sessions.get(call.query.get("upload_id", ""))
            told = call.headers.get("content-range", "")
            data = self._sessions.take(session, told, call.body(MAX_BODY_BYTES))
            if data is None:
                there = {"Range": f"bytes=0-{session.arrived - 1}"} if session.arrived else {}
                return Reply(308, headers=there)
            return self._finish(call, session, data)

    def _finish(self, call: Call, session: Session, data: bytes) -> Reply:
        try:
            _check_hash(call.headers.get("x-goog-hash", ""), data)
            found = self._write(
                session.bucket,
                session.name,
                data,
                session.metadata,
                session.kind,
                wanted=session.wanted,
                may_replace=lambda: self._owner_may_replace(session),
            )
        finally:
            self._sessions.end(session)
        return Reply(body=_shown(found, call.base))

    def _cancel(self, call: Call) -> Reply:
        with self._lock:
            self._sessions.end(self._sessions.get(call.query.get("upload_id", "")))
        return Reply(499)

    def _write(
        self,
        bucket: str,
        name: str,
        data: bytes,
        metadata: Mapping[str, Any],
        kind: str,
        *,
        wanted: Mapping[str, int],
        may_replace: Any,  # noqa: ANN401 - raises where it may not be
    ) -> dict[str, Any]:
        self._need_bucket(bucket)
        there = self._emulator.resource(bucket, name)
        if there is not None:
            may_replace()
        preconditions.check(wanted, there, reading=False)
        self._check_rate(bucket, name)
        checked = {key: metadata[key] for key in ("crc32c", "md5Hash") if metadata.get(key)}
        _check_hashes(checked, data)
        kept = {key: metadata[key] for key in ("metadata",) if metadata.get(key)}
        return self._emulator.store(
            bucket, name, data, kept, str(metadata.get("contentType") or kind)
        )

    def _may_write(self, call: Call, bucket: str, name: object) -> None:
        if not isinstance(name, str) or not 0 < len(name.encode()) <= MAX_NAME_BYTES:
            raise Refused(400, "required", "Required object name, of 1 to 1024 bytes.")
        shown = f"{bucket}/{name}"
        call.require("storage.objects.create", _object_name(bucket, name), shown=shown)
        self._need_bucket(bucket)

    @staticmethod
    def _may_replace(call: Call, bucket: str, name: str) -> None:
        shown = f"{bucket}/{name}"
        call.require("storage.objects.delete", _object_name(bucket, name), shown=shown)

    def _owner_may_replace(self, session: Session) -> None:
        account = self._identities.get(session.email)
        name = _object_name(session.bucket, session.name)
        if account is None or not account.may("storage.objects.delete", name):
            message = f"{session.email} does not have storage.objects.delete access."
            raise Refused(403, "forbidden", message)

    def _check_rate(self, bucket: str, name: str) -> None:
        if self.writes_per_second is None:
            return
        now = time.monotonic()
        if now - self._written.get((bucket, name), float("-inf")) < 1 / self.writes_per_second:
            raise Refused(
                429,
                "rateLimitExceeded",
                f"The object {bucket}/{name} exceeded the rate limit for object mutation "
                "operations (create, update, and delete). Please reduce your request rate.",
            )
        self._written[bucket, name] = now

    def _need_bucket(self, bucket: str) -> None:
        if not self._emulator.has_bucket(bucket):
            raise Refused(404, "notFound", "The specified bucket does not exist.")


def _bucket_name(bucket: str) -> str:
    return f"projects/_/buckets/{bucket}"


def _object_name(bucket: str, name: str) -> str:
    return f"projects/_/buckets/{bucket}/objects/{name}"


def _shown(found: dict[str, Any], base: str) -> dict[str, Any]:
    """A resource that leads here for its bytes, not past us."""
    tail = str(found.get("mediaLink", "")).partition("/download/")[2]
    return {**found, "size": str(found["size"]), "mediaLink": f"{base}/download/{tail}"}


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def _parts(call: Call) -> tuple[dict[str, Any], bytes, str]:
    """Metadata, bytes and media type of a request of type multipart/related (RFC 2387)."""
    kind = call.headers.get("content-type", "")
    header = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode())
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str):
        raise Refused(400, "badRequest", "Malformed multipart body.")
    mark = b"--" + boundary.encode()
    with suppress(ValueError, IndexError):
        first, second = (mark_less(part) for part in call.body(MAX_BODY_BYTES).split(mark)[1:3])
        told = BytesParser().parsebytes(second[0] + b"\r\n\r\n")
        return json.loads(first[1]), second[1], told.get_content_type()
    raise Refused(400, "badRequest", "Malformed multipart body.")


def mark_less(part: bytes) -> tuple[bytes, bytes]:
    """Headers and content of what stands between two boundaries."""
    normal = part.removeprefix(b"\r\n").removeprefix(b"\n")
    gap = b"\r\n\r\n" if b"\r\n\r\n" in normal.partition(b"\n\n")[0] else b"\n\n"
    headers, _, content = normal.partition(gap)
    return headers, content.removesuffix(b"\r\n") if gap == b"\r\n\r\n" else content[:-1]


def _check_hash(told: str, data: bytes) -> None:
    """Compare what a header ``X-Goog-Hash`` says with the bytes."""
    parts = dict(one.strip().split("=", 1) for one in told.split(",") if "=" in one)
    names = {"crc32c": "crc32c", "md5": "md5Hash"}
    _check_hashes({names[key]: value for key, value in parts.items() if key in names}, data)


def _check_hashes(told: Mapping[str, Any], data: bytes) -> None:
    have = {
        "crc32c": str(Crc32c(data)),
        "md5Hash": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
    }
    for name, value in told.items():
        if have[name] != value:
            shown = {"crc32c": "CRC32C", "md5Hash": "MD5 hash"}[name]
            raise Refused(
                400,
                "invalid",
                f'Provided {shown} "{value}" doesn\'t match calculated {shown} "{have[name]}".',
            )
