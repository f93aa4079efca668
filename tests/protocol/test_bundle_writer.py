"""Writing a bundle: the same bytes each time, the reader's rules, and no trace of what failed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import DocumentError, IntegrityError, InvalidInputError, StorageFullError
from edgefleet.protocol import bundle as b
from edgefleet.protocol import layout as lay
from tests.contract import samples
from tests.protocol.folders import add, fill_disk, holds, tree
from tests.protocol.forging import forge_weights


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A sound bundle."""
    return samples.write_bundle(tmp_path / "bundle").root


def test_same_content_gives_the_same_bytes(tmp_path: Path, root: Path) -> None:
    assert tree(samples.write_bundle(tmp_path / "elsewhere" / "again").root) == tree(root)


def test_order_in_which_files_are_given_does_not_matter(tmp_path: Path) -> None:
    digests = set()
    for order in (("a", "b"), ("b", "a")):
        for name in order:
            (tmp_path / name).write_text(name)
        folder = tmp_path / "".join(order)
        with lay.BundleWriter(folder) as writer:
            add(writer, {name: tmp_path / name for name in order}, entry="a")
            digests.add(writer.finish().digest)
    assert len(digests) == 1


def test_writer_that_is_left_early_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x")

    def leave() -> None:
        with lay.BundleWriter(tmp_path / "bundle") as writer:
            add(writer, {"model.onnx": tmp_path / "model"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave()
    assert holds(tmp_path, "model")


def test_writer_that_is_never_finished_leaves_nothing(tmp_path: Path) -> None:
    with lay.BundleWriter(tmp_path / "bundle") as writer:
        writer.add_bytes(b"x", "application/octet-stream")
    assert holds(tmp_path)


def test_copy_interrupted_half_way_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(bytes(3 << 20))

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lay.BundleWriter(tmp_path / "bundle") as writer:
        writer.add_file(tmp_path / "model", filepath="model.onnx", progress=stop)
    assert holds(tmp_path, "model")


def test_killed_writer_leaves_no_bundle(tmp_path: Path) -> None:
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from edgefleet.protocol import layout
        at, root = int(sys.argv[1]), Path(sys.argv[2])
        calls = 0
        def trace(frame, event, arg):
            global calls
            if frame.f_code.co_filename.endswith(("layout.py", "files.py")):
                calls += 1
                if calls == at:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace
        from tests.contract import samples
        sys.settrace(trace)
        samples.write_bundle(root)
    """
    outcomes = set()
    for at in range(1, 1300, 118):
        root = tmp_path / f"bundle-{at}"
        done = subprocess.run(
            [sys.executable, "-c", code, str(at), str(root)],
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert done.returncode in {0, -signal.SIGKILL}
        outcomes.add(root.exists())
        if root.exists():
            lay.BundleLayout(root).verify()
    assert outcomes == {False, True}


def test_folder_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("bundle", "dangling"):
        with pytest.raises(InvalidInputError, match=f"{name} exists already"):
            lay.BundleWriter(tmp_path / name)
    assert holds(tmp_path, "bundle", "dangling")


@pytest.mark.parametrize("theirs", ["bundle", "bundle/theirs"])
def test_what_somebody_else_made_meanwhile_is_not_overwritten(tmp_path: Path, theirs: str) -> None:
    (tmp_path / "model").write_bytes(b"x")
    with lay.BundleWriter(tmp_path / "bundle") as writer:
        add(writer, {"model.onnx": tmp_path / "model"})
        (tmp_path / theirs).parent.mkdir(exist_ok=True)
        (tmp_path / theirs).write_text("theirs")
        with pytest.raises(InvalidInputError, match="bundle exists already"):
            writer.finish()
    assert holds(tmp_path, "model", "bundle")
    assert (tmp_path / theirs).read_text() == "theirs"


def test_bundle_without_a_variant_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InvalidInputError, match="has no variant"),
        lay.BundleWriter(tmp_path / "bundle") as writer,
    ):
        writer.finish()
    assert holds(tmp_path)


def test_writer_keeps_the_reader_s_rules(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    os.mkfifo(tmp_path / "pipe")
    x = tmp_path / "x"
    bad: list[tuple[dict[str, Path], str]] = [
        ({"other": x}, "entry 'model.onnx' is not among"),
        ({"model.onnx": x, "../up": x}, r"unsafe file path: '\.\./up'"),
        ({"model.onnx": x, "MODEL.onnx": x}, "file 'model.onnx' twice"),
        ({"model.onnx": x, "model.onnx/data": x}, "both as a file and as a folder"),
        ({"model.onnx": tmp_path / "link"}, "link is a symbolic link"),
        ({"model.onnx": tmp_path / "pipe"}, "pipe is no plain file"),
        ({"model.onnx": tmp_path}, "is no plain file"),
        ({"model.onnx": tmp_path / "missing"}, "there is no file .*missing"),
    ]
    with lay.BundleWriter(tmp_path / "bundle") as writer:
        for files, why in bad:
            with pytest.raises(InvalidInputError, match=why):
                add(writer, files)


def test_variant_added_twice_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x")
    with lay.BundleWriter(tmp_path / "bundle") as writer:
        for _ in range(2):
            add(writer, {"model.onnx": tmp_path / "model"})
        with pytest.raises(DocumentError, match="names a variant twice"):
            writer.finish()
    assert holds(tmp_path, "model")


# ------------------------------------------------------------------------------------------- adopt


def test_adopted_variant_is_the_same_variant(root: Path, tmp_path: Path) -> None:
    source = lay.BundleLayout(root)
    with lay.BundleWriter(tmp_path / "other") as writer:
        writer.adopt(source, "int8")
        made = writer.finish()
    made.verify()
    assert made.variants == (source.variant("int8"),)


def test_adopting_damage_is_refused(root: Path, tmp_path: Path) -> None:
    forge_weights(root, lambda data: data[::-1])
    with (
        pytest.raises(IntegrityError, match=r"fp32/model\.onnx"),
        lay.BundleWriter(tmp_path / "other") as writer,
    ):
        writer.adopt(lay.BundleLayout(root), "fp32")


def test_writing_what_was_adopted_never_touches_the_source(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, before = lay.BundleLayout(root), tree(root)
    details = source.read(b.details_descriptor(source.manifest("fp32")), b.MAX_DETAILS_BYTES)
    with lay.BundleWriter(tmp_path / "other") as writer:
        writer.adopt(source, "fp32")  # by links: the new bundle's blobs are the source's files
        fill_disk(monkeypatch, after=10)
        with pytest.raises(StorageFullError):
            writer.add_bytes(details, b.DETAILS_MEDIA_TYPE)
    assert tree(root) == before


# --------------------------------------------------------------------------------------- disk full


@pytest.mark.parametrize("after", [0, 5, 30, 500, 900])
def test_full_disk_during_writing_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    (tmp_path / "model").write_bytes(bytes(100))

    def write() -> None:
        with lay.BundleWriter(tmp_path / "bundle") as writer:
            add(writer, {"model.onnx": tmp_path / "model"}, lineage={"note": "x" * 1000})
            writer.finish()

    with monkeypatch.context() as patch:
        fill_disk(patch, after=after)
        with pytest.raises(StorageFullError, match=r"no room left for .*\n  cure: free space"):
            write()
    assert holds(tmp_path, "model")


@pytest.mark.parametrize("nth", [2, 3, 4])
def test_full_disk_during_making_the_folders_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    really, left = os.mkdir, [nth]

    def mkdir(*args: Any, **options: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        really(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        with pytest.raises(StorageFullError):
            lay.BundleWriter(tmp_path / "bundle")
    assert holds(tmp_path)
