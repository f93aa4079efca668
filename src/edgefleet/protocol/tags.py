"""Tags: how files that a device writes are named in an OCI registry, where a name is a tag.

A device has a repository of its own, ``REPOSITORY/devices/DEVICE``, because registries bound what
a credential may write by repository. A file in it is an artifact of one layer, whose tag says what
its path would say elsewhere, so that a listing of tags is enough to choose from. Does no IO.

Tags: distribution-spec 1.1, "Pulling manifests": ``[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}``.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from edgefleet.errors import DocumentError, InvalidInputError
from edgefleet.protocol.digest import Digest, check_digest
from edgefleet.protocol.documents import parse
from edgefleet.protocol.segment import SUFFIX, parse_segment_path

DEVICES = "devices"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_DATA = b"{}"
EMPTY_DIGEST = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
"""Of `EMPTY_DATA`: image-spec 1.1, "Guidance for an empty descriptor"."""
ARTIFACT = "application/vnd.edgefleet.device.file.v1"
TITLE = "org.opencontainers.image.title"
MAX_TAG = 128  # characters
MAX_MANIFEST_BYTES = 64 << 10

_SEGMENT = re.compile(r"s\.(\d{4}-\d{2}-\d{2})\.([0-9a-z-]+)\.(.+)")
_HOT = re.compile(r"h\.(\d{4}-\d{2}-\d{2})\.([0-9a-f]{16}-[0-9a-f]{8})")
_HOT_PATH = re.compile(r"hot/(\d{4}-\d{2}-\d{2})/([0-9a-f]{16}-[0-9a-f]{8})\.json")
_SAMPLE = re.compile(r"b\.([0-9a-f]{64})")
_SAMPLE_PATH = re.compile(r"samples/sha256/([0-9a-f]{64})")


class _Layer(msgspec.Struct, frozen=True, rename="camel"):
    digest: Digest
    size: int


class _Manifest(msgspec.Struct, frozen=True, rename="camel"):
    layers: tuple[_Layer, ...]
    artifact_type: str = ""


def device_repository(repository: str, device: str) -> str:
    """Name of the repository that one device writes.

    Raises:
        InvalidInputError: the device's name can't be part of one; names of nodes can.
    """
    if not re.fullmatch(r"[a-z0-9]+(?:(?:\.|-+)[a-z0-9]+)*", device):
        raise InvalidInputError(
            f"no repository can be named for the device {device[:200]!r}",
            cure="name devices as Kubernetes names nodes: small letters, digits, dashes and dots",
        )
    return f"{repository}/{DEVICES}/{device}"


def tag_of(path: str) -> str:
    """The tag of a file, given its path below the device's own prefix.

    Raises:
        InvalidInputError: such a file has none.
    """
    tag = ""
    segment = parse_segment_path(f"{DEVICES}/x/{path}")
    hot, sample = _HOT_PATH.fullmatch(path), _SAMPLE_PATH.fullmatch(path)
    if segment is not None:
        tag = f"s.{segment.day.isoformat()}.{segment.id}.{segment.model}"
    elif hot is not None:
        tag = f"h.{hot[1]}.{hot[2]}"
    elif sample is not None:
        tag = f"b.{sample[1]}"
    if not 0 < len(tag) <= MAX_TAG:
        raise InvalidInputError(f"no tag for {path[:200]!r}")
    return tag


def path_of(tag: str) -> str | None:
    """The path that a tag stands for; None when it is none of ours."""
    if found := _SEGMENT.fullmatch(tag):
        path = f"segments/date={found[1]}/model={found[3]}/{found[2]}{SUFFIX}"
        return path if parse_segment_path(f"{DEVICES}/x/{path}") is not None else None
    if found := _HOT.fullmatch(tag):
        return f"hot/{found[1]}/{found[2]}.json"
    found = _SAMPLE.fullmatch(tag)
    return None if found is None else f"samples/sha256/{found[1]}"


def manifest_of(path: str, digest: str, size: int) -> bytes:
    """The manifest of a file: its content as the only layer.

    Args:
        path: below the device's own prefix.
        digest: of the content.
        size: of the content, in bytes.
    """
    content: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": {"mediaType": EMPTY, "digest": EMPTY_DIGEST, "size": len(EMPTY_DATA)},
        "layers": [
            {
                "mediaType": "application/octet-stream",
                "digest": digest,
                "size": size,
                "annotations": {TITLE: path},
            }
        ],
    }
    return msgspec.json.encode(content)


def content_of(manifest: bytes) -> tuple[str, int]:
    """Digest and size in bytes of what a file's manifest leads to.

    Raises:
        DocumentError: it is no such manifest.
    """
    if len(manifest) > MAX_MANIFEST_BYTES:
        raise DocumentError(f"a manifest has {len(manifest)} bytes, {MAX_MANIFEST_BYTES} may be")
    found = parse(_Manifest, manifest, "manifest")
    if len(found.layers) != 1 or found.artifact_type not in {ARTIFACT, ""}:
        raise DocumentError("not the manifest of a device's file")
    layer = found.layers[0]
    return check_digest(layer.digest), layer.size
