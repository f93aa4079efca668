"""A stand-in for an OCI registry: distribution-spec 1.1 over HTTP on loopback.

It refuses what the specification refuses, and can be told to be one of the lesser kinds: without
referrers, chunks, mounts or deletion of tags, with tokens or passwords, or with a store on another
host that it redirects downloads to by signed addresses that end. Where each rule comes from is told
in ``providers/kubernetes/mock_rules.md``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from edgefleet.protocol.digest import CHUNK_BYTES
from edgefleet.testing.cloud.calls import Call, Refused, Reply
from edgefleet.testing.cloud.front import Front, Journal
from edgefleet.testing.cloud.oci_content import INDEX, MAX_MANIFEST_BYTES, Content
from edgefleet.testing.cloud.oci_tokens import Access, User
from edgefleet.testing.cloud.rules import Rules
from edgefleet.testing.cloud.server import App, Route

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CHUNK = re.compile(r"(\d+)-(\d+)")
_ACTIONS = {"GET": "pull", "HEAD": "pull", "DELETE": "delete"}


def throttled(after_s: float | None = None) -> Refused:
    """The answer to who asks too often."""
    headers = {} if after_s is None else {"Retry-After": f"{after_s:g}"}
    return Refused(429, "TOOMANYREQUESTS", "too many requests", headers=headers)


@dataclass
class Kind:
    """What kind of registry it is; may be changed while it runs.

    Attributes:
        referrers: whether it answers what refers to a manifest.
        chunks: whether a blob may be sent in parts.
        mounts: whether a blob may be taken over from another repository.
        deletes: whether tags and manifests may be deleted.
        redirects: whether downloads are redirected to a store on another host.
        signed_s: for how long the address of such a download is good, in seconds.
        drop_every: bytes of a body, either way, after which the connection is dropped.
        keeps_chunks: chunks of an upload that are kept, the rest is taken and dropped, as Amazon's
            registry does; None for all.
        least_chunk: bytes that a chunk but the last must have, which its answers tell; 0 for any.
        page: tags a page holds at most.
    """

    referrers: bool = True
    chunks: bool = True
    mounts: bool = True
    deletes: bool = True
    redirects: bool = False
    signed_s: float = 60.0
    drop_every: int | None = None
    keeps_chunks: int | None = None
    least_chunk: int = 0
    page: int = 100


class OciRegistry:
    """A registry and the store behind it, each a server on loopback of its own.

    Args:
        root: folder of its content.
        kind: what kind of registry it is.
        users: who may do what, by name; None where everybody may do all.
        bearer: whether users are shown tokens for; else their passwords.
        token_s: for how long a token is good, in seconds.
        clock: gives the time, in seconds.
        tls: to serve HTTPS with; None for plain HTTP.
        journal: where calls are written; None for one of its own.
        rules: faults to inject; None for rules of its own.
    """

    def __init__(
        self,
        root: Path,
        kind: Kind | None = None,
        *,
        users: Mapping[str, User] | None = None,
        bearer: bool = True,
        token_s: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
        journal: Journal | None = None,
        rules: Rules | None = None,
    ) -> None:
        self.kind = kind or Kind()
        self.content = Content(root)
        self.rules = rules or Rules(throttled)
        self.journal = journal or Journal()
        self.access = (
            None if users is None else Access(users, bearer=bearer, lifetime_s=token_s, clock=clock)
        )
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._front = Front("oci-registry", self._app("oci", _Api(self), self._admit), tls=tls)
        self._store = Front(
            "oci-store", self._app("oci-store", _Store(self), lambda _: None), tls=tls
        )

    def _app(self, name: str, mount: _Api | _Store, admit: Callable[[Call], None]) -> App[Call]:
        app = App(
            name,
            Call,
            rules=self.rules,
            journal=self.journal,
            admit=admit,
            refuse=_as_spec,
            caller=lambda _: "",
            stamped=lambda: {"Docker-Distribution-Api-Version": "registry/2.0"},
        )
        app.mount(mount)
        return app

    def start(self, port: int = 0) -> None:
        """Listen."""
        self._front.start(port)
        self._store.start()

    def stop(self) -> None:
        """Answer nobody any more."""
        self._front.stop()
        self._store.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Its address."""
        return self._front.url

    @property
    def port(self) -> int:
        """That it listens on; 0 while it doesn't."""
        return self._front.port

    @property
    def host(self) -> str:
        """Host and port."""
        return self.url.partition("://")[2]

    def seen(self, operation: str = "", status: str = "") -> list[str]:
        """Lines of the journal, oldest first.

        Args:
            operation: such as ``GetBlob``; empty for all.
            status: likewise.
        """
        lines = (line.split(" ") for line in self.journal.lines())
        return [
            " ".join(line)
            for line in lines
            if operation in {"", line[1].partition(".")[2]} and status in {"", line[-1]}
        ]

    def _admit(self, call: Call) -> None:
        uploads = "/blobs/uploads" in call.path
        action = "push" if uploads else _ACTIONS.get(call.method, "push")
        self.allow(call, call.parts.get("name", ""), action)

    def allow(self, call: Call, name: str, action: str) -> None:
        """Let a call pass that does something with a repository.

        Raises:
            Refused: it may not.
        """
        if self.access is not None:
            realm = f"{self.url}/token"
            self.access.check(call.headers.get("authorization", ""), name, action, realm)

    def signed(self, method: str, digest: str) -> str:
        """An address of the store that is good for a while, for one method, as S3 signs them."""
        ends = f"{self._clock() + self.kind.signed_s:.3f}"
        signature = self._signature(method, digest, ends)
        return f"{self._store.url}/{digest}?ends={ends}&signature={signature}"

    def _signature(self, method: str, digest: str, ends: str) -> str:
        return hmac.new(self._key, f"{method} {digest} {ends}".encode(), hashlib.sha256).hexdigest()

    def check_signed(self, call: Call, digest: str) -> None:
        """Let a call of the store pass.

        Raises:
            Refused: its address has ended, or was made by others.
        """
        ends = call.query.get("ends", "0")
        right = self._signature(call.method, digest, ends)
        known = hmac.compare_digest(call.query.get("signature", ""), right)
        if not known or float(ends) <= self._clock():
            raise Refused(403, "DENIED", "the request has expired")


class _Store:
    """Where a registry's blobs lie, for whoever shows a signed address."""

    def __init__(self, registry: OciRegistry) -> None:
        self._registry = registry

    @property
    def routes(self) -> tuple[Route[Call], ...]:
        return tuple(
            Route("oci.StoreGet", method, "/{digest}", self._get) for method in ("GET", "HEAD")
        )

    def _get(self, call: Call) -> Reply:
        digest = call.parts["digest"]
        if "authorization" in call.headers:  # as S3: "Only one auth mechanism allowed"
            raise Refused(400, "UNSUPPORTED", "an Authorization beside a signature")
        self._registry.check_signed(call, digest)
        path = self._registry.content.path_of(digest)
        return _file(call, path, digest, self._registry.kind.drop_every)


class _Api:
    """The specification's API."""

    def __init__(self, registry: OciRegistry) -> None:
        self._registry = registry
        self._content = registry.content

    @property
    def _kind(self) -> Kind:
        return self._registry.kind

    @property
    def routes(self) -> tuple[Route[Call], ...]:
        upload, begin = "/v2/{name*}/blobs/uploads/{upload}", "/v2/{name*}/blobs/uploads"
        blob, manifest = "/v2/{name*}/blobs/{digest}", "/v2/{name*}/manifests/{reference}"
        return (
            Route("oci.GetToken", "GET", "/token", self._token, open=True),
            Route("oci.GetToken", "POST", "/token", self._token, open=True),
            Route("oci.Version", "GET", "/v2", lambda _: Reply()),
            Route("oci.BeginUpload", "POST", begin, self._begin_upload),
            Route("oci.GetUpload", "GET", upload, self._get_upload),
            Route("oci.SendChunk", "PATCH", upload, self._send_chunk),
            Route("oci.EndUpload", "PUT", upload, self._end_upload),
            Route("oci.DropUpload", "DELETE", upload, self._drop_upload),
            Route("oci.GetBlob", "GET", blob, self._get_blob),
            Route("oci.HeadBlob", "HEAD", blob, self._get_blob),
            Route("oci.GetManifest", "GET", manifest, self._get_manifest),
            Route("oci.HeadManifest", "HEAD", manifest, self._get_manifest),
            Route("oci.PutManifest", "PUT", manifest, self._put_manifest),
            Route("oci.DeleteManifest", "DELETE", manifest, self._delete_manifest),
            Route("oci.ListTags", "GET", "/v2/{name*}/tags/list", self._list_tags),
            Route("oci.ListReferrers", "GET", "/v2/{name*}/referrers/{digest}", self._referrers),
        )

    def _token(self, call: Call) -> Reply:
        access = self._registry.access
        if access is None:
            raise Refused(404, "UNSUPPORTED", "tokens are not wanted here")
        form = call.body(1 << 16).decode() if call.method == "POST" else None
        query = str(call.environ.get("QUERY_STRING", ""))
        return Reply(200, access.give(call.headers.get("authorization", ""), query, form))

    # Blobs

    def _get_blob(self, call: Call) -> Reply:
        digest = call.parts["digest"]
        path = self._content.blob(call.parts["name"], digest)
        if self._kind.redirects:
            return Reply(307, headers={"Location": self._registry.signed(call.method, digest)})
        return _file(call, path, digest, self._kind.drop_every)

    def _begin_upload(self, call: Call) -> Reply:
        name, digest, source = call.parts["name"], call.query.get("mount"), call.query.get("from")
        if digest and source and self._kind.mounts:
            self._registry.allow(call, source, "pull")
            if self._content.mount(name, digest, source):
                return _made(name, "blobs", digest)
        return self._under_way(202, name, self._content.begin(name))

    def _under_way(self, status: int, name: str, upload: str) -> Reply:
        size = self._content.upload(name, upload).size
        location = f"/v2/{name}/blobs/uploads/{upload}"
        headers = {"Location": location, "Range": f"0-{max(0, size - 1)}"}
        if self._kind.least_chunk:
            headers["OCI-Chunk-Min-Length"] = str(self._kind.least_chunk)
        return Reply(status, headers=headers)

    def _get_upload(self, call: Call) -> Reply:
        return self._under_way(204, call.parts["name"], call.parts["upload"])

    def _send_chunk(self, call: Call) -> Reply:
        name, upload = call.parts["name"], call.parts["upload"]
        there = self._content.upload(name, upload)
        if not self._kind.chunks:
            raise Refused(405, "UNSUPPORTED", "blobs are taken whole here")
        said = _CHUNK.fullmatch(call.headers.get("content-range", ""))
        kept = self._kind.keeps_chunks is None
        if kept and said is not None and int(said[1]) != there.size:
            at = {"Range": f"0-{max(0, there.size - 1)}"}
            raise Refused(416, "BLOB_UPLOAD_INVALID", "a chunk out of order", headers=at)
        length = int(call.headers.get("content-length") or 0)
        if said is not None and int(said[2]) - int(said[1]) + 1 != length:
            raise Refused(400, "SIZE_INVALID", "another length than the range says")
        there.chunks += 1
        if self._kind.keeps_chunks is None or there.chunks <= self._kind.keeps_chunks:
            self._take(call)
        return self._under_way(202, name, upload)

    def _end_upload(self, call: Call) -> Reply:
        name, upload = call.parts["name"], call.parts["upload"]
        self._content.upload(name, upload)
        self._take(call)
        digest = call.query.get("digest", "")
        self._content.finish(name, upload, digest)
        return _made(name, "blobs", digest)

    def _drop_upload(self, call: Call) -> Reply:
        self._content.drop(call.parts["name"], call.parts["upload"])
        return Reply(204)

    def _take(self, call: Call) -> None:
        """Take a request's body, as far as the connection lasts."""
        body = iter(lambda: call.environ["wsgi.input"].read1(CHUNK_BYTES), b"")
        for data in _dropping(body, self._kind.drop_every):
            self._content.take(call.parts["name"], call.parts["upload"], data)

    # Manifests, tags and what refers to a manifest

    def _get_manifest(self, call: Call) -> Reply:
        found = self._content.manifest(call.parts["name"], call.parts["reference"])
        headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
        return Reply(200, found.data, headers)

    def _put_manifest(self, call: Call) -> Reply:
        name, reference = call.parts["name"], call.parts["reference"]
        data = call.body(MAX_MANIFEST_BYTES)
        media_type = call.headers.get("content-type", "")
        subject = self._content.put_manifest(name, reference, media_type, data)
        reply = _made(name, "manifests", reference)
        if subject is not None and self._kind.referrers:
            reply.headers["OCI-Subject"] = subject
        return reply

    def _delete_manifest(self, call: Call) -> Reply:
        if not self._kind.deletes:
            raise Refused(405, "UNSUPPORTED", "the operation is unsupported")
        self._content.delete(call.parts["name"], call.parts["reference"])
        return Reply(202)

    def _list_tags(self, call: Call) -> Reply:
        name, last = call.parts["name"], call.query.get("last", "")
        tags = sorted(self._content.repository(name).tags, key=lambda tag: (tag.lower(), tag))
        left = [tag for tag in tags if not last or (tag.lower(), tag) > (last.lower(), last)]
        most = min(int(call.query.get("n") or self._kind.page), self._kind.page)
        page, headers = left[:most], {}
        if page and len(left) > len(page):
            headers["Link"] = f'</v2/{name}/tags/list?n={most}&last={page[-1]}>; rel="next"'
        return Reply(200, {"name": name, "tags": page}, headers)

    def _referrers(self, call: Call) -> Reply:
        if not self._kind.referrers:
            raise Refused(404, "UNSUPPORTED", "page not found")
        found = self._content.referrers(call.parts["name"], call.parts["digest"])
        headers = {"Content-Type": INDEX}
        if kind := call.query.get("artifactType"):
            found = [one for one in found if one["artifactType"] == kind]
            headers["OCI-Filters-Applied"] = "artifactType"
        return Reply(200, {"schemaVersion": 2, "mediaType": INDEX, "manifests": found}, headers)


def _as_spec(refused: Refused) -> Reply:
    """A refusal in the specification's format, "Error Codes"."""
    error = {"code": refused.code, "message": refused.message, **refused.detail}
    return Reply(refused.status, {"errors": [error]}, refused.headers)


def _made(name: str, kind: str, reference: str) -> Reply:
    headers = {"Location": f"/v2/{name}/{kind}/{reference}"}
    if reference.startswith("sha256:"):
        headers["Docker-Content-Digest"] = reference
    return Reply(201, headers=headers)


def _file(call: Call, path: Path, digest: str, drop_every: int | None) -> Reply:
    size = path.stat().st_size
    headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
    headers |= {"Accept-Ranges": "bytes", "ETag": f'"{digest}"'}
    asked = _RANGE.fullmatch(call.headers.get("range", ""))
    start, end = 0, size
    if asked is not None:
        start = int(asked[1])
        end = min(size, int(asked[2]) + 1) if asked[2] else size
        if start >= end:
            at = {"Content-Range": f"bytes */{size}"}
            raise Refused(416, "SIZE_INVALID", "range not satisfiable", headers=at)
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    body = _dropping(_read(path, start, end), drop_every) if call.method == "GET" else None
    return Reply(200 if asked is None else 206, body, headers)


def _read(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(start)
        while start < end and (data := stream.read(min(CHUNK_BYTES, end - start))):
            start += len(data)
            yield data


def _dropping(body: Iterable[bytes], left: int | None) -> Iterator[bytes]:
    """A body up to where the connection is dropped."""
    for data in body:
        if left is None:
            yield data
            continue
        yield data[:left]
        left -= len(data)
        if left < 0:
            raise ConnectionResetError("the registry drops the connection")
