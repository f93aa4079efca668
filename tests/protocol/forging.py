"""Bundles with one thing wrong: everything around it is made consistent again, digests included."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import blob_path, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Change = Callable[[dict[str, Any]], object]
    """Alters a document's plain form in place."""


def forge_index(root: Path, change: Change) -> None:
    """Alter a bundle's index."""
    plain = json.loads((root / "index.json").read_bytes())
    change(plain)
    data = json.dumps(plain).encode()
    (root / "index.json").write_bytes(data)
    _store(root, data)


def forge_manifest(root: Path, change: Change) -> None:
    """Alter the first variant's manifest; the index names the new one."""
    forge_index(root, lambda index: _replace(root, index["manifests"][0], change))


def forge_details(root: Path, change: Change) -> None:
    """Alter the first variant's details; manifest and index name the new ones."""
    forge_manifest(root, lambda manifest: _replace(root, _details_in(manifest), change))


def forge_weights(root: Path, change: Callable[[bytes], bytes]) -> Path:
    """Alter the bytes of the first variant's first file, under its old digest; gives its path."""
    index = json.loads((root / "index.json").read_bytes())
    manifest = json.loads(_read(root, index["manifests"][0]))
    path = root / blob_path(manifest["layers"][0]["digest"])
    path.write_bytes(change(path.read_bytes()))
    return path


def _replace(root: Path, descriptor: dict[str, Any], change: Change) -> None:
    plain = json.loads(_read(root, descriptor))
    change(plain)
    data = json.dumps(plain).encode()
    _store(root, data)
    descriptor.update(digest=digest_of(data), size=len(data))


def _details_in(manifest: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = [
        layer for layer in manifest["layers"] if layer["mediaType"] == b.DETAILS_MEDIA_TYPE
    ]
    return found[0]


def _read(root: Path, descriptor: dict[str, Any]) -> bytes:
    return (root / blob_path(descriptor["digest"])).read_bytes()


def _store(root: Path, data: bytes) -> None:
    (root / blob_path(digest_of(data))).write_bytes(data)
