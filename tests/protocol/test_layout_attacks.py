"""A bundle with one thing wrong, by malice or damage: refused, and the error says what and why."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import (
    DocumentError,
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
)
from edgefleet.protocol import bundle as b
from edgefleet.protocol import layout as lay
from edgefleet.protocol.digest import blob_path, digest_of
from tests.contract import samples
from tests.protocol.folders import blob_of
from tests.protocol.forging import forge_details, forge_index, forge_manifest, forge_weights

if TYPE_CHECKING:
    from collections.abc import Callable

INDEX = Path(samples.__file__).parent / "golden" / "index.json"
INDEX_BLOB = blob_path(digest_of(INDEX.read_bytes()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound bundle."""
    return samples.write_bundle(tmp_path / "bundle").root


def link(path: Path, root: Path) -> None:
    """Put a symlink in the place of a file or folder, to an equal one outside the bundle."""
    outside = root.parent / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def first_layer(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda root: forge_manifest(root, lambda m: change(m["layers"][0]))


def set_path(path: str) -> Callable[[Path], None]:
    return first_layer(lambda layer: layer["annotations"].update({b.FILEPATH: path}))


def add_file(path: str) -> Callable[[Path], None]:
    """Another layer of no bytes, so that the sizes still add up."""

    def change(manifest: dict[str, Any]) -> None:
        first = manifest["layers"][0]
        manifest["layers"].append({**first, "size": 0, "annotations": {b.FILEPATH: path}})

    return lambda root: forge_manifest(root, change)


def corrupt_manifest(root: Path) -> None:
    index = json.loads((root / "index.json").read_bytes())
    first = root / blob_path(index["manifests"][0]["digest"])
    data = bytearray(first.read_bytes())
    data[-2] ^= 1
    first.write_bytes(data)


FIRST = "sha256:" + "[0-9a-f]{64}"

ATTACKS: dict[str, tuple[Callable[[Path], object], type[EdgeFleetError], str]] = {
    # the folder
    "no folder": (shutil.rmtree, NotFoundError, "bundle is no bundle: it has no oci-layout"),
    "no marker": (lambda r: (r / "oci-layout").unlink(), NotFoundError, "has no oci-layout"),
    "no index": (lambda r: (r / "index.json").unlink(), NotFoundError, "has no index.json"),
    "marker of another version": (
        lambda r: (r / "oci-layout").write_text('{"imageLayoutVersion":"2.0.0"}'),
        DocumentError,
        "bundle: image layout version '2.0.0' is unknown",
    ),
    "marker too big": (
        lambda r: (r / "oci-layout").write_text(" " * 5000),
        DocumentError,
        "oci-layout is over the limit",
    ),
    "index that is a link": (
        lambda r: link(r / "index.json", r),
        InvalidInputError,
        "index.json is a symbolic link",
    ),
    "index that is a pipe": (
        lambda r: pipe(r / "index.json"),
        InvalidInputError,
        "index.json is no plain file",
    ),
    "index that is a folder": (
        lambda r: folder(r / "index.json"),
        InvalidInputError,
        "index.json is no plain file",
    ),
    "index too big": (
        lambda r: (r / "index.json").write_text(" " * (b.MAX_INDEX_BYTES + 1)),
        DocumentError,
        "index.json is over the limit of 1048576 bytes",
    ),
    "index that is no JSON": (
        lambda r: (r / "index.json").write_text("nonsense"),
        DocumentError,
        "index.json: malformed bundle index",
    ),
    "folder of blobs that is a link": (
        lambda r: link(r / "blobs", r),
        IntegrityError,
        "blobs is a link or no folder",
    ),
    "folder of digests that is a link": (
        lambda r: link(r / "blobs" / "sha256", r),
        IntegrityError,
        "sha256 is a link or no folder",
    ),
    "no folder of blobs": (
        lambda r: shutil.rmtree(r / "blobs"),
        IntegrityError,
        "folder .*blobs is missing",
    ),
    # blobs
    "blob that is a link": (
        lambda r: link(blob_of(r, "model.onnx"), r),
        IntegrityError,
        rf"blob {FIRST} \(fp32/model.onnx\) is a link or no plain file",
    ),
    "blob that is a pipe": (
        lambda r: pipe(blob_of(r, "model.onnx")),
        IntegrityError,
        "is a link or no plain file",
    ),
    "blob missing": (
        lambda r: blob_of(r, "model.onnx").unlink(),
        IntegrityError,
        rf"the bundle lacks blob {FIRST} \(fp32/model.onnx\)",
    ),
    "blob too long": (
        lambda r: forge_weights(r, lambda data: data + b"x"),
        IntegrityError,
        r"blob .* \(fp32/model.onnx\) has 22 bytes, 21 are due",
    ),
    "blob cut short": (
        lambda r: forge_weights(r, lambda data: data[:-1]),
        IntegrityError,
        r"blob .* \(fp32/model.onnx\) has 20 bytes, 21 are due",
    ),
    "blob corrupted": (
        lambda r: forge_weights(r, lambda data: b"S" + data[1:]),
        IntegrityError,
        r"blob .* \(fp32/model.onnx\) holds other content",
    ),
    "manifest corrupted": (
        corrupt_manifest,
        IntegrityError,
        "holds other content than its digest says",
    ),
    "index differs from its blob": (
        lambda r: (r / INDEX_BLOB).write_bytes(b" " * (r / INDEX_BLOB).stat().st_size),
        IntegrityError,
        "holds other content",
    ),
    # index
    "index that requires a feature": (
        lambda r: forge_index(r, lambda i: i.update(annotations={b.REQUIRES_KEY: "holograms"})),
        DocumentError,
        "index.json: this bundle requires features unknown here: holograms",
    ),
    "variant twice": (
        lambda r: forge_index(r, lambda i: i["manifests"].append(i["manifests"][0])),
        DocumentError,
        "index.json: the bundle names a variant twice: fp32, fp32, int8",
    ),
    "variant smaller than its files": (
        lambda r: forge_index(
            r, lambda i: i["manifests"][0]["annotations"].update({b.BYTES_KEY: "1"})
        ),
        DocumentError,
        "variant 'fp32': its files take 44 bytes, the index says 1",
    ),
    "manifest too big to be one": (
        lambda r: forge_index(r, lambda i: i["manifests"][0].update(size=b.MAX_MANIFEST_BYTES + 1)),
        IntegrityError,
        "has 1048577 bytes, 1048576 are allowed",
    ),
    # manifest
    "manifest that requires a feature": (
        lambda r: forge_manifest(r, lambda m: m.update(annotations={b.REQUIRES_KEY: "holograms"})),
        DocumentError,
        "variant 'fp32': this variant requires features unknown here: holograms",
    ),
    "path above the root": (set_path("../x"), DocumentError, r"'fp32': unsafe file path: '\.\./x'"),
    "absolute path": (
        set_path("/etc/cron.d/x"),
        DocumentError,
        "unsafe file path: '/etc/cron.d/x'",
    ),
    "backslash": (set_path("..\\x"), DocumentError, "unsafe file path"),
    "drive": (set_path("C:x"), DocumentError, "unsafe file path: 'C:x'"),
    "empty path": (set_path(""), DocumentError, "unsafe file path: ''"),
    "path twice": (add_file("model.onnx"), DocumentError, "the file 'model.onnx' twice"),
    "path twice in other case": (add_file("MODEL.onnx"), DocumentError, "file 'MODEL.onnx' twice"),
    "file below a file": (
        add_file("model.onnx/data"),
        DocumentError,
        "'model.onnx' both as a file and as a folder",
    ),
    "two details layers": (
        lambda r: forge_manifest(r, lambda m: m["layers"].append(m["layers"][-1])),
        DocumentError,
        "variant 'fp32': the variant has 2 details layers",
    ),
    "no details layer": (
        lambda r: forge_manifest(r, lambda m: m["layers"].pop()),
        DocumentError,
        "has 0 details layers",
    ),
    "layer of an unknown kind": (
        first_layer(lambda layer: layer.update(mediaType="application/x-encrypted")),
        DocumentError,
        "file 'model.onnx' has media type 'application/x-encrypted', unknown here",
    ),
    # details
    "details that require a feature": (
        lambda r: forge_details(r, lambda d: d.update(requires=["holograms"])),
        DocumentError,
        "variant 'fp32': this details requires features unknown here: holograms",
    ),
    "entry that is no file": (
        lambda r: forge_details(r, lambda d: d.update(entry="other.onnx")),
        DocumentError,
        "variant 'fp32': entry 'other.onnx' is not among the variant's files",
    ),
    "entry above the root": (
        lambda r: forge_details(r, lambda d: d.update(entry="../../../bin/sh")),
        DocumentError,
        r"entry '\.\./\.\./\.\./bin/sh' is not among",
    ),
    "details of another variant": (
        lambda r: forge_details(r, lambda d: d.update(variant="int8")),
        DocumentError,
        "variant 'fp32': its details are those of variant 'int8'",
    ),
    "details that are malformed": (
        lambda r: forge_details(r, lambda d: d.pop("interface")),
        DocumentError,
        "variant 'fp32': malformed details",
    ),
    "details too big": (
        lambda r: forge_manifest(r, lambda m: m["layers"][-1].update(size=b.MAX_DETAILS_BYTES + 1)),
        IntegrityError,
        "are due|are allowed",
    ),
}


USES: dict[str, Callable[[Path, Path], object]] = {
    "verify": lambda root, _: lay.BundleLayout(root).verify(),
    "materialize": lambda root, out: lay.BundleLayout(root).materialize("fp32", out),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_refused_and_says_which_file_and_why(
    root: Path, tmp_path: Path, attack: str, use: str
) -> None:
    change, kind, why = ATTACKS[attack]
    change(root)
    out = tmp_path / "out" / "fp32"
    with pytest.raises(kind, match=why):
        USES[use](root, out)
    assert not out.exists()


def test_file_where_a_bundle_should_be_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(NotFoundError, match=r"model\.onnx is no bundle"):
        lay.BundleLayout(tmp_path / "model.onnx")


def test_link_to_a_whole_bundle_is_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(root)
    lay.BundleLayout(tmp_path / "latest").verify()
