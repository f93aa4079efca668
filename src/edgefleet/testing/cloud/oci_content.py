"""What a stand-in registry holds: blobs on disk, and which repository has which of them.

Rules kept here, all of them the distribution specification's (see `edgefleet.testing.cloud.oci`):

- A blob belongs to a repository when its bytes have hashed to its digest.
- A manifest names nothing that its repository lacks, but for its subject.
- A tag is moved, never compared: there is no compare-and-swap.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.protocol.digest import digest_of, digest_of_file
from edgefleet.protocol.files import write_whole
from edgefleet.testing.cloud.calls import Refused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{_PART}(?:/{_PART})*")
TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
INDEX = "application/vnd.oci.image.index.v1+json"
MAX_MANIFEST_BYTES = 4 << 20


@dataclass
class Repository:
    """One repository.

    Attributes:
        blobs: digests that may be read from it.
        manifests: media types by digest.
        tags: digests by tag.
    """

    blobs: set[str] = field(default_factory=set)
    manifests: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Manifest(NamedTuple):
    """A manifest that a repository holds."""

    digest: str
    media_type: str
    data: bytes


class Upload:
    """Bytes of a blob on its way.

    Args:
        path: where they gather.

    Attributes:
        chunks: that came.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.chunks = 0
        path.write_bytes(b"")

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._path.stat().st_size

    def add(self, data: bytes) -> None:
        """Append bytes."""
        with self._path.open("ab") as to:
            to.write(data)

    def replace(self, data: bytes) -> None:
        """Hold these bytes instead."""
        self._path.write_bytes(data)

    def digest(self) -> str:
        """Of the bytes so far."""
        return digest_of_file(self._path)[0]

    def move(self, to: Path) -> None:
        """Become a blob."""
        self._path.replace(to)

    def drop(self) -> None:
        """Be forgotten."""
        self._path.unlink(missing_ok=True)


class Content:
    """Repositories below a folder.

    Args:
        root: the folder; made when missing.
    """

    def __init__(self, root: Path) -> None:
        self.lock = threading.RLock()
        self._blobs, self._uploading = root / "blobs" / "sha256", root / "uploads"
        for folder in (self._blobs, self._uploading):
            folder.mkdir(parents=True, exist_ok=True)
        self._repositories: dict[str, Repository] = {}
        self._uploads: dict[tuple[str, str], Upload] = {}
        self.taken = 0
        """Bytes of blobs that came in, since it began."""

    def path_of(self, digest: str) -> Path:
        """Where a blob's bytes lie."""
        return self._blobs / digest.removeprefix("sha256:")

    def repository(self, name: str) -> Repository:
        """The repository of that name.

        Raises:
            Refused: the name is none, or nothing was pushed there.
        """
        if not NAME.fullmatch(name) or len(name) > 255:
            raise Refused(400, "NAME_INVALID", "invalid repository name")
        found = self._repositories.get(name)
        if found is None:
            raise Refused(404, "NAME_UNKNOWN", "repository name not known to registry")
        return found

    def names(self) -> Iterator[str]:
        """Of all repositories."""
        yield from sorted(self._repositories)

    # Blobs

    def blob(self, name: str, digest: str) -> Path:
        """Where the bytes of a repository's blob lie."""
        if not DIGEST.fullmatch(digest):
            raise Refused(400, "DIGEST_INVALID", "not a digest that is known here")
        if digest not in self.repository(name).blobs:
            raise Refused(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return self.path_of(digest)

    def begin(self, name: str) -> str:
        """Begin an upload, and give its name."""
        if not NAME.fullmatch(name):
            raise Refused(400, "NAME_INVALID", "invalid repository name")
        upload = secrets.token_hex(16)
        self._uploads[name, upload] = Upload(self._uploading / upload)
        return upload

    def upload(self, name: str, upload: str) -> Upload:
        """An upload under way."""
        found = self._uploads.get((name, upload))
        if found is None:
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        return found

    def uploads(self) -> Iterator[Upload]:
        """All that are under way."""
        yield from self._uploads.values()

    def take(self, name: str, upload: str, data: bytes) -> None:
        """Append bytes to an upload."""
        self.upload(name, upload).add(data)
        with self.lock:
            self.taken += len(data)

    def finish(self, name: str, upload: str, digest: str) -> None:
        """Make an upload a blob."""
        found = self.upload(name, upload)
        if not DIGEST.fullmatch(digest) or found.digest() != digest:
            self.drop(name, upload)
            raise Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        with self.lock:
            found.move(self.path_of(digest))
            del self._uploads[name, upload]
            self._repositories.setdefault(name, Repository()).blobs.add(digest)

    def drop(self, name: str, upload: str) -> None:
        """End an upload without a blob."""
        self.upload(name, upload).drop()
        del self._uploads[name, upload]

    def mount(self, name: str, digest: str, source: str) -> bool:
        """Have a repository hold what another one does; whether it does now."""
        with self.lock:
            there = self._repositories.get(source)
            if there is None or digest not in there.blobs:
                return False
            self._repositories.setdefault(name, Repository()).blobs.add(digest)
            return True

    # Manifests

    def manifest(self, name: str, reference: str) -> Manifest:
        """A manifest, by tag or digest."""
        there = self.repository(name)
        digest = reference if DIGEST.fullmatch(reference) else there.tags.get(reference, "")
        if digest not in there.manifests:
            raise Refused(404, "MANIFEST_UNKNOWN", "manifest unknown")
        return Manifest(digest, there.manifests[digest], self.path_of(digest).read_bytes())

    def put_manifest(self, name: str, reference: str, media_type: str, data: bytes) -> str | None:
        """Take a manifest; gives the digest of its subject."""
        if not (TAG.fullmatch(reference) or DIGEST.fullmatch(reference)):
            raise Refused(400, "MANIFEST_INVALID", "neither a tag nor a digest")
        digest = digest_of(data)
        if DIGEST.fullmatch(reference) and reference != digest:
            raise Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        if not NAME.fullmatch(name):
            raise Refused(400, "NAME_INVALID", "invalid repository name")
        manifest = _parsed(data, media_type)
        with self.lock:
            there = self._repositories.setdefault(name, Repository())
            _check_parts(manifest, there)
            write_whole(self.path_of(digest), data)
            there.manifests[digest] = media_type
            if reference != digest:
                there.tags[reference] = digest
        subject = manifest.get("subject")
        return None if subject is None else str(subject["digest"])

    def delete(self, name: str, reference: str) -> None:
        """Take a tag away, or a manifest with its tags."""
        with self.lock:
            there = self.repository(name)
            if reference in there.tags:
                del there.tags[reference]
                return
            if there.manifests.pop(reference, None) is None:
                raise Refused(404, "MANIFEST_UNKNOWN", "manifest unknown")
            there.tags = {tag: at for tag, at in there.tags.items() if at != reference}

    def referrers(self, name: str, digest: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `digest`, whether that is there or not."""
        found = []
        with self.lock:
            held = dict(self._repositories.get(name, Repository()).manifests)
        for one, media_type in held.items():
            data = self.path_of(one).read_bytes()
            manifest = json.loads(data)
            if (manifest.get("subject") or {}).get("digest") != digest:
                continue
            kind = manifest.get("artifactType") or manifest.get("config", {}).get("mediaType")
            about = {"mediaType": media_type, "digest": one, "size": len(data)}
            about |= {"artifactType": kind, "annotations": manifest.get("annotations", {})}
            found.append(about)
        return found

    # Going on where it was

    def kept(self) -> dict[str, Any]:
        """Repositories, as JSON has them; blobs lie on disk."""
        return {
            name: {"blobs": sorted(one.blobs), "manifests": one.manifests, "tags": one.tags}
            for name, one in self._repositories.items()
        }

    def restore(self, kept: dict[str, Any]) -> None:
        """Become what `kept` told."""
        self._repositories = {
            name: Repository(set(one["blobs"]), one["manifests"], one["tags"])
            for name, one in kept.items()
        }


def _parsed(data: bytes, media_type: str) -> dict[str, Any]:
    if len(data) > MAX_MANIFEST_BYTES:
        raise Refused(413, "MANIFEST_INVALID", "the manifest is too large")
    try:
        manifest = json.loads(data)
        said = manifest.get("mediaType", media_type)
        if manifest["schemaVersion"] != 2 or said != media_type:
            raise ValueError  # noqa: TRY301 - the same answer as for what is no JSON
    except (ValueError, KeyError, AttributeError):
        raise Refused(400, "MANIFEST_INVALID", "manifest invalid") from None
    return dict(manifest)


def _check_parts(manifest: dict[str, Any], there: Repository) -> None:
    if "manifests" in manifest:
        missing = [one for one in manifest["manifests"] if one["digest"] not in there.manifests]
    else:
        parts = (manifest["config"], *manifest.get("layers", ()))
        missing = [one for one in parts if one["digest"] not in there.blobs]
    if missing:
        raise Refused(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
