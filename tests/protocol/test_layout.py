"""A bundle on disk: what lies where, and what is laid out from it."""

from __future__ import annotations

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING

import jsonschema
import pytest

from edgefleet.errors import IntegrityError, NotFoundError, StorageFullError
from edgefleet.protocol import bundle as b
from edgefleet.protocol import layout as lay
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.testing.waiting import TIMEOUT_S
from tests.contract import samples
from tests.protocol.folders import blob_of, fill_disk, holds, tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound bundle."""
    return samples.write_bundle(tmp_path / "bundle").root


def test_bundle_is_a_valid_oci_image_layout(root: Path) -> None:
    # OCI image-spec v1.1, image-layout.md: oci-layout, index.json, blobs/<algorithm>/<digest>.
    assert json.loads((root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((root / "index.json").read_bytes())
    assert (index["schemaVersion"], index["mediaType"]) == (2, b.INDEX_MEDIA_TYPE)
    for blob in (root / "blobs" / "sha256").iterdir():
        assert digest_of(blob.read_bytes()) == f"sha256:{blob.name}"
    for manifest in index["manifests"]:
        data = (root / blob_path(manifest["digest"])).read_bytes()
        assert len(data) == manifest["size"]
        assert json.loads(data)["schemaVersion"] == 2


def test_config_is_valid_modelpack(root: Path, contracts: Path) -> None:
    schema = json.loads((contracts / "modelpack" / "config-schema.json").read_bytes())
    layout = lay.BundleLayout(root)
    for variant in layout.variants:
        manifest = layout.manifest(variant.name)
        config = json.loads(layout.read(manifest.config, b.MAX_CONFIG_BYTES))
        jsonschema.Draft202012Validator(schema).validate(config)
        assert config["modelfs"]["diffIds"] == [layer.digest for layer in manifest.layers]
        assert config["config"]["precision"] == variant.precision


def test_index_lies_among_the_blobs_too(root: Path) -> None:
    index = (root / "index.json").read_bytes()
    assert (root / blob_path(digest_of(index))).read_bytes() == index


def test_blobs_come_before_what_names_them(root: Path) -> None:
    layout = lay.BundleLayout(root)
    place = {blob.digest: i for i, blob in enumerate(layout.blobs())}
    for variant in layout.variants:
        for blob in b.blobs_of(layout.manifest(variant.name)):
            assert place[blob.digest] < place[variant.manifest.digest] < place[layout.digest]
    assert len(place) == len(list((root / "blobs/sha256").iterdir()))


def test_one_variant_needs_only_its_own_blobs(root: Path) -> None:
    layout = lay.BundleLayout(root)
    wanted = {blob.digest for blob in layout.blobs("int8")}
    for path in (root / "blobs" / "sha256").iterdir():
        if f"sha256:{path.name}" not in wanted:
            path.unlink()
    layout.verify(variant="int8")
    with pytest.raises(IntegrityError, match="the bundle lacks blob"):
        layout.verify()


def test_verifying_reports_every_byte(root: Path) -> None:
    steps: list[int] = []
    lay.BundleLayout(root).verify(progress=steps.append)
    assert sum(steps) == sum(path.stat().st_size for path in (root / "blobs/sha256").iterdir())


def test_unknown_variant_is_refused_with_those_there_are(root: Path) -> None:
    layout = lay.BundleLayout(root)
    for use in (layout.manifest, layout.details, layout.blobs, lambda v: layout.verify(variant=v)):
        with pytest.raises(
            NotFoundError, match="no variant 'fp64'\n  cure: choose one of fp32, int8"
        ):
            use("fp64")


def test_bundle_shows_its_variants(root: Path) -> None:
    layout = lay.BundleLayout(root)
    assert repr(layout) == f"<bundle {layout.digest[7:19]} with fp32, int8 at {root}>"


# ---------------------------------------------------------------------------------------- lay out


def test_files_of_a_variant_lie_as_they_were_packed(root: Path, tmp_path: Path) -> None:
    entry = lay.BundleLayout(root).materialize("fp32", tmp_path / "a" / "b" / "fp32")
    assert entry == tmp_path / "a" / "b" / "fp32" / "model.onnx"
    assert tree(tmp_path / "a" / "b" / "fp32") == samples.FILES


def test_files_laid_out_are_links_and_cost_no_room(root: Path, tmp_path: Path) -> None:
    entry = lay.BundleLayout(root).materialize("fp32", tmp_path / "fp32")
    assert entry.stat().st_ino == blob_of(root, "model.onnx").stat().st_ino


def test_files_are_copied_where_no_link_can_be_made(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_disk(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", other_disk)
    lay.BundleLayout(root).materialize("fp32", tmp_path / "fp32")
    assert tree(tmp_path / "fp32") == samples.FILES
    assert holds(tmp_path, "bundle", "fp32")


def test_laying_out_again_changes_nothing(root: Path, tmp_path: Path) -> None:
    layout = lay.BundleLayout(root)
    first = layout.materialize("fp32", tmp_path / "fp32").stat()
    assert layout.materialize("fp32", tmp_path / "fp32").stat().st_ino == first.st_ino
    assert holds(tmp_path, "bundle", "fp32")


def test_interrupted_laying_out_leaves_nothing(root: Path, tmp_path: Path) -> None:
    layout = lay.BundleLayout(root)
    seen: list[Path] = []

    def stop_at_the_second(descriptor: b.Descriptor) -> Path:
        if seen:
            raise KeyboardInterrupt
        seen.append(layout.path_of(descriptor))
        return seen[0]

    with pytest.raises(KeyboardInterrupt):
        lay.lay_out(layout.manifest("fp32"), stop_at_the_second, tmp_path / "fp32")
    assert holds(tmp_path, "bundle")


def test_many_at_once_lay_out_the_same_folder(root: Path, tmp_path: Path) -> None:
    layout = lay.BundleLayout(root)
    manifest, start = layout.manifest("fp32"), Barrier(8)
    out = tmp_path / "out" / "fp32"

    def path_of(descriptor: b.Descriptor) -> Path:
        start.wait(TIMEOUT_S)  # nobody moves its folder before all have begun
        return layout.path_of(descriptor)

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(lay.lay_out, manifest, path_of, out) for _ in range(8)]:
            done.result()
    assert tree(out) == samples.FILES
    assert holds(tmp_path / "out", "fp32")


def test_full_disk_during_laying_out_leaves_no_trace(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = lay.BundleLayout(root)
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as patch:
        fill_disk(patch, after=0)
        with pytest.raises(StorageFullError, match="no room left for"):
            layout.materialize("fp32", tmp_path / "out" / "fp32")
    assert holds(tmp_path / "out")
    layout.materialize("fp32", tmp_path / "out" / "fp32")


def test_full_disk_during_completing_a_folder_leaves_the_old_index(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(root)
    with monkeypatch.context() as patch:
        fill_disk(patch, after=40)
        with pytest.raises(StorageFullError):
            lay.write_layout_marks(root, b"x" * 100)
    assert tree(root) == before


def test_other_trouble_with_the_disk_stays_what_it_is(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = lay.BundleLayout(root)
    fill_disk(monkeypatch, after=0, code=errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        layout.materialize("fp32", tmp_path / "out")
    assert holds(tmp_path, "bundle")


def test_folder_completed_with_its_marks_is_a_bundle(root: Path) -> None:
    index = (root / "index.json").read_bytes()
    (root / "index.json").unlink()
    (root / "oci-layout").unlink()
    lay.write_layout_marks(root, index)
    lay.BundleLayout(root).verify()
