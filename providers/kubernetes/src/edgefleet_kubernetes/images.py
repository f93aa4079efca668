"""A release as an OCI image archive, for nodes that reach no registry of models.

One layer holds every blob that a device of any hardware may fetch: the release, and its models'
indexes, manifests and files of all variants, below ``blobs/sha256`` as every source has them. The
archive is what ``ctr images import`` and ``skopeo copy oci-archive:`` read.

Rules kept here:

- The same release gives the same bytes: names in order, no times, owner 0.
- A blob is read once, as it is written, and held to its digest; nothing but documents is held in
  memory. What is at the archive's place is replaced when all of it is there.
- The layer is one file for all of `ARCHITECTURES`: two manifests name it, because runtimes take
  only an image of their own architecture.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from edgefleet.errors import InvalidInputError, LimitExceededError, NotFoundError
from edgefleet.interfaces.amounts import size_text
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import blob_path, digest_of, hex_of
from edgefleet.protocol.files import checked_chunks, replacing
from edgefleet.protocol.release import Release, read_release
from edgefleet_kubernetes.manifests import image_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet.interfaces.blobs import BlobStore
    from edgefleet.rollout.plan import Plan

ARCHITECTURES = ("amd64", "arm64")
MAX_BYTES = 64 << 30
"""Most bytes of blobs in one image; registries and nodes' disks take fewer as a rule."""

LAYER = "application/vnd.oci.image.layer.v1.tar"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_END = bytes(2 * tarfile.BLOCKSIZE)


class ImageArchive(NamedTuple):
    """An image archive that was written.

    Attributes:
        path: of it.
        reference: that nodes have to know the image by.
        digest: of the image's index.
        size: of the archive, in bytes.
    """

    path: Path
    reference: str
    digest: str
    size: int


class _Blob(NamedTuple):
    descriptor: b.Descriptor
    open: Callable[[], BinaryIO]


def planned_release(plan: Plan) -> Release:
    """The release that a plan ends in.

    Raises:
        NotFoundError: its documents don't hold it.
    """
    wanted = f"releases/{hex_of(plan.after)}.json"
    for document in plan.documents:
        if document.path == wanted:
            return read_release(document.content)
    raise NotFoundError(f"the plan for {plan.group} holds no release", cure="plan a deployment")


def write_image(
    release: Release, blobs: BlobStore, folder: Path | str, *, repository: str
) -> ImageArchive:
    """The archive of a release's image, written into a folder.

    Args:
        release: to be carried.
        blobs: the registry's.
        folder: is made where it isn't; the archive is called after the release.
        repository: as the setting ``model_images``.

    Raises:
        InvalidInputError: the release has no models.
        LimitExceededError: it has more than `MAX_BYTES`.
        NotFoundError: the registry lacks a blob.
        IntegrityError: it holds other content than a digest says.
    """
    if not release.models:
        raise InvalidInputError("a release without models needs no image")
    found = _blobs(release, blobs)
    total = sum(one.descriptor.size for one in found)
    if total > MAX_BYTES:
        raise LimitExceededError(
            f"the release's blobs have {size_text(total)}, an image holds {size_text(MAX_BYTES)}",
            cure="give the models to several groups, or leave variants out",
        )
    tag = image_tag(release.digest)
    path = Path(folder) / f"{tag}.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    reference = f"{repository}:{tag}"
    with replacing(path) as temporary, temporary.open("wb") as archive:
        digest = _write(archive, found, reference)
        size = archive.tell()
    return ImageArchive(path, reference, digest, size)


def _blobs(release: Release, blobs: BlobStore) -> list[_Blob]:
    """Everything that a device may fetch of a release, each digest once, in order."""
    found: dict[str, _Blob] = {}

    def add(data: bytes) -> None:
        descriptor = b.Descriptor(media_type="", digest=digest_of(data), size=len(data))
        found[descriptor.digest] = _Blob(descriptor, lambda: io.BytesIO(data))

    add(release.encoded())
    for model in release.models:
        index = blobs.read_bytes(model.bundle, max_bytes=b.MAX_INDEX_BYTES)
        add(index)
        for variant in b.variants_of(b.read_index(index)):
            data = blobs.read_bytes(variant.manifest.digest, max_bytes=b.MAX_MANIFEST_BYTES)
            add(data)
            for one in b.blobs_of(b.read_manifest(data)):
                found[one.digest] = _Blob(one, lambda digest=one.digest: blobs.open(digest))  # type: ignore[misc]
    return [found[digest] for digest in sorted(found)]


def _write(archive: BinaryIO, found: list[_Blob], reference: str) -> str:
    # The layer's digest, which is its name, is known when all of it is written: its header, which
    # is one block whatever stands in it, is written then.
    archive.write(bytes(tarfile.BLOCKSIZE))
    digest, size = _write_layer(archive, found)
    _pad(archive, size)
    layer = b.Descriptor(media_type=LAYER, digest=digest, size=size)
    documents: list[bytes] = []

    def keep(media_type: str, document: dict[str, Any]) -> dict[str, Any]:
        data = _encoded(document)
        documents.append(data)
        return {"mediaType": media_type, "digest": digest_of(data), "size": len(data)}

    manifests = []
    for architecture in ARCHITECTURES:
        platform = {"architecture": architecture, "os": "linux"}
        about = {**platform, "config": {}, "rootfs": {"type": "layers", "diff_ids": [digest]}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": keep(CONFIG, about),
            "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size}],
        }
        manifests.append({**keep(MANIFEST, manifest), "platform": platform})
    index = keep(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
    names = {CONTAINERD_NAME: reference, REF_NAME: reference.rpartition(":")[2]}
    entry = {"schemaVersion": 2, "manifests": [{**index, "annotations": names}]}
    for data in documents:
        _add(archive, blob_path(digest_of(data)), data)
    _add(archive, "oci-layout", _encoded({"imageLayoutVersion": "1.0.0"}))
    _add(archive, "index.json", _encoded(entry))
    archive.write(_END)
    end = archive.tell()
    archive.seek(0)
    archive.write(_header(blob_path(digest), size))
    archive.seek(end)
    return str(index["digest"])


def _write_layer(archive: BinaryIO, found: list[_Blob]) -> tuple[str, int]:
    """Write the layer; its digest and size."""
    hasher, size = hashlib.sha256(), 0
    for piece in _layer(found):
        hasher.update(piece)
        archive.write(piece)
        size += len(piece)
    return f"sha256:{hasher.hexdigest()}", size


def _layer(found: list[_Blob]) -> Iterator[bytes | memoryview]:
    for folder in ("blobs", "blobs/sha256"):
        yield _header(folder, 0, kind=tarfile.DIRTYPE)
    for descriptor, opened in found:
        yield _header(blob_path(descriptor.digest), descriptor.size)
        with opened() as stream:
            yield from checked_chunks(stream, descriptor)
        yield bytes(-descriptor.size % tarfile.BLOCKSIZE)
    yield _END


def _header(name: str, size: int, *, kind: bytes = tarfile.REGTYPE) -> bytes:
    """One block: GNU's form writes sizes beyond 8 GiB into it, PAX's takes further blocks."""
    about = tarfile.TarInfo(name)
    about.size, about.type = size, kind
    about.mode = 0o755 if kind == tarfile.DIRTYPE else 0o444
    return about.tobuf(tarfile.GNU_FORMAT)


def _encoded(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _add(archive: BinaryIO, name: str, data: bytes) -> None:
    archive.write(_header(name, len(data)))
    archive.write(data)
    _pad(archive, len(data))


def _pad(archive: BinaryIO, size: int) -> None:
    archive.write(bytes(-size % tarfile.BLOCKSIZE))
