"""A whole bundle in a folder, one document of which is whatever came from outside.

Digests above that document are made to fit again, as whoever forges a bundle would: it is read, not
turned away for its digest. The first byte chooses the document.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from edgefleet.protocol.bundle import DETAILS_MEDIA_TYPE
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.protocol.layout import INDEX_FILE, LAYOUT_FILE, BundleLayout

VARIANT = "fp32"
_PARTS = ("marker", "index", "manifest", "details", "file")


def read_bundle(golden: Path, data: bytes) -> None:
    """Open the forged bundle, verify all of it and lay out every variant."""
    part = _PARTS[data[0] % len(_PARTS)] if data else _PARTS[0]
    with tempfile.TemporaryDirectory(prefix="edgefleet-fuzz-") as work:
        root = Path(work, "bundle")
        shutil.copytree(golden, root)
        _forge(root, part, data[1:])
        bundle = BundleLayout(root)
        for variant in bundle.variants:
            bundle.materialize(
                variant.name, Path(work, "laid-out", digest_of(variant.name.encode()))
            )
        # Nothing may have come to lie outside the folder of a variant.
        assert {path.name for path in Path(work).iterdir()} <= {"bundle", "laid-out"}


def parts_of(golden: Path) -> tuple[bytes, ...]:
    """Each document as it is in the bundle, behind the byte that chooses it."""
    index, manifest = _documents(golden)
    layers = {layer["mediaType"]: layer for layer in manifest["layers"]}
    contents = (
        (golden / LAYOUT_FILE).read_bytes(),
        (golden / INDEX_FILE).read_bytes(),
        (golden / blob_path(index["manifests"][0]["digest"])).read_bytes(),
        (golden / blob_path(layers[DETAILS_MEDIA_TYPE]["digest"])).read_bytes(),
        (golden / blob_path(manifest["layers"][0]["digest"])).read_bytes(),
    )
    return tuple(bytes([number]) + content for number, content in enumerate(contents))


def _documents(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    index = json.loads((root / INDEX_FILE).read_bytes())
    named = index["manifests"][0]
    assert VARIANT in named["annotations"].values()
    return index, json.loads((root / blob_path(named["digest"])).read_bytes())


def _forge(root: Path, part: str, data: bytes) -> None:
    if part in {"marker", "index"}:
        (root / (LAYOUT_FILE if part == "marker" else INDEX_FILE)).write_bytes(data)
        _put(root, data)
        return
    index, manifest = _documents(root)
    if part != "manifest":
        wanted = (layer["mediaType"] == DETAILS_MEDIA_TYPE for layer in manifest["layers"])
        number = [*wanted].index(part == "details")
        layer = manifest["layers"][number]
        old = layer["size"]
        layer.update(_put(root, data))
        data = json.dumps(manifest).encode()
        if part == "file":
            about = index["manifests"][0]["annotations"]
            about["dev.edgefleet.bytes"] = str(
                int(about["dev.edgefleet.bytes"]) - old + layer["size"]
            )
    index["manifests"][0].update(_put(root, data))
    forged = json.dumps(index).encode()
    (root / INDEX_FILE).write_bytes(forged)
    _put(root, forged)


def _put(root: Path, data: bytes) -> dict[str, Any]:
    digest = digest_of(data)
    (root / blob_path(digest)).write_bytes(data)
    return {"digest": digest, "size": len(data)}
