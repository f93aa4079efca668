"""Fetch a bundle out of a blob store into a folder: resumable, checked, atomic."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, BinaryIO

from edgefleet.errors import IntegrityError, InvalidInputError
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import CHUNK_BYTES, blob_path, digest_of_file
from edgefleet.protocol.layout import BundleLayout, translate_full, write_layout_marks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgefleet.interfaces.blobs import BlobStore

    Progress = Callable[[int], object]


def pull_bundle(
    blobs: BlobStore,
    digest: str,
    to: Path,
    *,
    variant: str | None = None,
    progress: Progress | None = None,
) -> BundleLayout:
    """See `Registry.pull`. Parts lie beside ``to`` until they are complete."""
    from filelock import FileLock  # noqa: PLC0415 - only where something is pulled

    to = to.absolute()
    if to.exists():
        return _there_already(digest, to, variant)
    to.parent.mkdir(parents=True, exist_ok=True)
    staging = to.parent / f".{to.name}.pull-{digest[7:19]}"
    with FileLock(staging.with_name(staging.name + ".lock")):
        if to.exists():
            return _there_already(digest, to, variant)
        index_bytes = blobs.read_bytes(digest, max_bytes=b.MAX_INDEX_BYTES)
        wanted = [v for v in b.variants_of(b.read_index(index_bytes)) if variant in (None, v.name)]
        if not wanted:
            msg = f"the bundle has no variant {variant!r}"
            raise InvalidInputError(msg)
        for one in wanted:
            fetch_blob(blobs, one.manifest, staging, progress)
            manifest = b.read_manifest((staging / blob_path(one.manifest.digest)).read_bytes())
            for descriptor in b.blobs_of(manifest):
                fetch_blob(blobs, descriptor, staging, progress)
        (staging / blob_path(digest)).write_bytes(index_bytes)
        write_layout_marks(staging, index_bytes)
        staging.rename(to)
    staging.with_name(staging.name + ".lock").unlink(missing_ok=True)
    return BundleLayout(to)


def _there_already(digest: str, to: Path, variant: str | None) -> BundleLayout:
    layout = BundleLayout(to)
    if layout.digest != digest:
        msg = f"{to} holds another bundle: {layout.digest}"
        raise InvalidInputError(msg, cure="name a new folder, or remove that one")
    layout.verify(variant=variant)
    return layout


def fetch_blob(
    blobs: BlobStore, descriptor: b.Descriptor, staging: Path, progress: Progress | None
) -> bool:
    """Have a blob in a folder, checked; goes on where it stopped.

    Args:
        blobs: where it comes from.
        descriptor: of the blob.
        staging: the folder; it lies at its `blob_path` there.
        progress: called with the bytes of each step.

    Returns:
        False when it was there already.

    Raises:
        IntegrityError: the store's is damaged.
    """
    target = staging / blob_path(descriptor.digest)
    if target.exists():
        if digest_of_file(target, progress=progress) == (descriptor.digest, descriptor.size):
            return False
        target.unlink()
    partial = target.with_name(target.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    hasher, have = _resume(partial, progress)
    if have < descriptor.size:
        with blobs.open(descriptor.digest, offset=have) as source:
            have += _append(partial, source, hasher, descriptor.size - have, progress)
    if have != descriptor.size or "sha256:" + hasher.hexdigest() != descriptor.digest:
        partial.unlink()
        msg = f"blob {descriptor.digest} in the registry is damaged ({have} bytes read)"
        raise IntegrityError(msg, cure="push the bundle again from a good copy")
    partial.rename(target)
    return True


def _resume(partial: Path, progress: Progress | None) -> tuple[hashlib._Hash, int]:
    """Hash what an earlier pull left; an empty file where it left nothing."""
    hasher, have = hashlib.sha256(), 0
    partial.touch()
    with partial.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            hasher.update(chunk)
            have += len(chunk)
            if progress is not None:
                progress(len(chunk))
    return hasher, have


def _append(
    partial: Path,
    source: BinaryIO,
    hasher: hashlib._Hash,
    expected: int,
    progress: Progress | None,
) -> int:
    """Copy a stream to the end of a file, hashing; stops once it is longer than it should be."""
    added = 0
    with translate_full(partial), partial.open("ab") as to:
        while added <= expected and (chunk := source.read(CHUNK_BYTES)):
            hasher.update(chunk)
            to.write(chunk)
            added += len(chunk)
            if progress is not None:
                progress(len(chunk))
    return added
