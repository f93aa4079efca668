"""The blob store: a bundle's blobs and manifests in one repository of an OCI registry.

Rules kept here (docs/adr/0025):

- Everything lies in the repository as it is in the bundle, under its own digest: files, configs and
  details as blobs, each variant's manifest and the index as manifests, so that any tool for OCI
  registries can copy a version. Whoever asks for a digest is given either.
- A document of its own, such as a release, is a blob that no bundle names. Registries delete such
  blobs; so a manifest that is tagged ``blob-<hex>`` holds it.
"""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import httpx2

from edgefleet.errors import IntegrityError, NotFoundError, UnavailableError
from edgefleet.interfaces.blobs import BlobStore, missing
from edgefleet.interfaces.resuming import Pieces, ResumingStream
from edgefleet.interfaces.sending import Told
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.layout import check_bytes, checked_bytes
from edgefleet_kubernetes.oci_errors import RegistryRefusal, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.errors import EdgeFleetError
    from edgefleet.interfaces.resuming import Body
    from edgefleet.protocol.bundle import Descriptor
    from edgefleet_kubernetes.oci import RegistryClient
    from edgefleet_kubernetes.oci_upload import Uploads

    Progress = Callable[[int], object]

EMPTY_MEDIA_TYPE = "application/vnd.oci.empty.v1+json"  # image-spec 1.1, "empty descriptor"
EMPTY = b"{}"
_MANIFESTS = (b.MANIFEST_MEDIA_TYPE, b.INDEX_MEDIA_TYPE)
RECORD_TYPE = "application/vnd.edgefleet.record.v1+json"
"""What a version's record is shown as."""
# Blobs that some manifest names already, or will.
_HELD = ("application/vnd.cncf.model.", b.DETAILS_MEDIA_TYPE, EMPTY_MEDIA_TYPE, RECORD_TYPE)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-")


class OciBlobStore(BlobStore):
    """Blobs and manifests of one repository.

    Args:
        client: of the repository; closed with the store.
        uploads: to send blobs with.
        mirrors: more addresses that devices find blobs below.
        held: whether whoever puts blobs has a manifest hold them, so that the registry keeps them.
    """

    provider = "kubernetes"

    def __init__(
        self,
        client: RegistryClient,
        uploads: Uploads,
        *,
        mirrors: tuple[str, ...] = (),
        held: bool = False,
    ) -> None:
        self._client, self._uploads, self._held = client, uploads, held
        self._sources = (str(client.repository), *mirrors)

    def close(self) -> None:
        self._client.close()

    @property
    def sources(self) -> tuple[str, ...]:
        return self._sources

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _size(self, digest: str) -> int | None:
        size = self._size_of_blob(digest)
        if size is not None:
            return size
        try:
            found = self._client.manifest(digest, head=True, again=False)
        except (RegistryRefusal, httpx2.TransportError) as error:
            # distribution/distribution says 500 of a manifest that is a blob: one that somebody
            # else has pushed meanwhile.
            if isinstance(error, RegistryRefusal) and error.status < 500:
                raise
            size = self._size_of_blob(digest)
            if size is not None:
                return size
            found = self._client.manifest(digest, head=True)
        return None if found is None else found.size

    def _size_of_blob(self, digest: str) -> int | None:
        try:
            reply = self._client.call(
                "HEAD", f"{self._client.url}/blobs/{digest}", f"blob {digest}"
            )
        except RegistryRefusal as refusal:
            if refusal.status == 404:
                return None
            raise
        if "Content-Length" not in reply.headers:
            raise UnavailableError(
                f"{self._client.where(f'blob {digest}')}: the registry tells no size",
                retryable=False,
            )
        return int(reply.headers["Content-Length"])

    def _open(self, digest: str, offset: int) -> BinaryIO:
        try:
            return cast("BinaryIO", BlobReader(self._client, digest, offset))
        except RegistryRefusal as refusal:
            if refusal.status != 404:
                raise
            found = self._client.manifest(digest)
            if found is None:
                raise missing(digest) from refusal
        return io.BytesIO(found.data[offset:])

    def _put(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        progress: Progress | None,
    ) -> None:
        told = Told(progress)
        if descriptor.media_type in _MANIFESTS:
            with source() as stream:
                data = checked_bytes(stream, descriptor)
            self._client.put_manifest(descriptor.digest, descriptor.media_type, data)
            told.up_to(len(data))
            return
        self._uploads.send(descriptor, source, told)
        if descriptor.media_type and not descriptor.media_type.startswith(_HELD):
            self.attach(f"blob-{hex_of(descriptor.digest)}", descriptor, kind=descriptor.media_type)

    def attach(
        self,
        tag: str | None,
        descriptor: Descriptor,
        *,
        kind: str,
        subject: Descriptor | None = None,
        annotations: dict[str, str] | None = None,
    ) -> Descriptor:
        """Have a manifest hold a blob that is there, and give the manifest's descriptor.

        Args:
            tag: of the manifest; None for its digest alone.
            descriptor: of the blob.
            kind: type of what it is.
            subject: what it is about.
            annotations: of the manifest.
        """
        config = self.put_bytes(EMPTY, EMPTY_MEDIA_TYPE)
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": b.MANIFEST_MEDIA_TYPE,
            "artifactType": kind,
            "config": _as_json(config),
            "layers": [_as_json(descriptor)],
        }
        if subject is not None:
            manifest["subject"] = _as_json(subject)
        if annotations:
            manifest["annotations"] = annotations
        data = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        self._client.put_manifest(tag or digest_of(data), b.MANIFEST_MEDIA_TYPE, data)
        return b.Descriptor(
            media_type=b.MANIFEST_MEDIA_TYPE,
            digest=digest_of(data),
            size=len(data),
            artifact_type=kind,
            annotations=annotations or {},
        )

    def index(self, digest: str) -> bytes:
        """A bundle's index, checked.

        Raises:
            NotFoundError: it isn't there.
            IntegrityError: it is damaged.
        """
        found = self._client.manifest(digest)
        if found is None:
            raise NotFoundError(
                f"{self._client.where(digest)} is gone", cure="push the bundle again"
            )
        size = len(found.data)
        check_bytes(found.data, b.Descriptor(media_type="", digest=digest, size=size))
        return found.data


class BlobReader(ResumingStream):
    """A blob's bytes from an offset on.

    Args:
        client: of its repository.
        digest: of the blob.
        offset: first byte to read; the blob's size for none.

    Raises:
        RegistryRefusal: when made: there is no such blob, or it may not be read.
    """

    store: ClassVar[str] = "the registry"
    lost: ClassVar[tuple[type[Exception], ...]] = (httpx2.TransportError, OSError)

    def __init__(self, client: RegistryClient, digest: str, offset: int) -> None:
        self._client, self._digest = client, digest
        super().__init__(offset)

    def _fetch(self, offset: int, tag: str | None) -> tuple[Body, str | None]:
        url, what = f"{self._client.url}/blobs/{self._digest}", f"blob {self._digest}"
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            reply = self._client.open("GET", url, what, headers=headers)
        except RegistryRefusal as refusal:
            if refusal.status == 416 and offset:
                return io.BytesIO(), tag  # the offset is the end
            raise
        body = Pieces(reply.iter_raw(), reply.close)
        if reply.status_code == 206:
            said = _CONTENT_RANGE.match(reply.headers.get("Content-Range", ""))
            if said is not None and int(said[1]) != offset:
                body.close()
                raise IntegrityError(f"{what}: asked from byte {offset}, answered from {said[1]}")
        else:
            _skip(body, offset)  # a registry without ranges
        return body, tag

    def _is_refusal(self, error: Exception) -> bool:
        return isinstance(error, RegistryRefusal)

    def _meaning(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)


def _skip(body: Body, count: int) -> None:
    while count and (data := body.read(count)):
        count -= len(data)


def _as_json(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
