from __future__ import annotations

import io
import resource
import stat
from pathlib import Path

import pytest

from edgefleet.errors import ConfigurationError, StorageFullError
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import blob_path, digest_of_file
from edgefleet.protocol.layout import BundleLayout
from edgefleet.testing.kit import samples
from edgefleet_local.registry import DirectoryBlobStore, LocalRegistry
from providers.local.tests.support import cut_at_every_point, elsewhere

DATA = samples.noise(2_500_000, 1)
BLOB = samples.descriptor_of(DATA)


def _nothing(home: Path) -> None:
    home.mkdir(parents=True)


def _put(home: Path) -> None:
    DirectoryBlobStore(home).put(BLOB, lambda: io.BytesIO(DATA))


def _is_absent_or_whole(home: Path) -> None:
    store = DirectoryBlobStore(home)
    assert store.size(BLOB.digest) in (None, len(DATA))
    if store.size(BLOB.digest) is not None:
        assert store.read_bytes(BLOB.digest, max_bytes=len(DATA)) == DATA
    _put(home)
    assert store.read_bytes(BLOB.digest, max_bytes=len(DATA)) == DATA
    assert _files(home / "partial" / "blobs") == []


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_put_killed_anywhere_leaves_no_blob_or_a_whole_one(home: Path) -> None:
    (points,) = elsewhere(cut_at_every_point, home, _nothing, _put, _is_absent_or_whole)
    assert points >= 10


def _make_bundle(home: Path) -> None:
    home.mkdir(parents=True)
    samples.bundle(home, size=400)


def _push(home: Path) -> None:
    LocalRegistry(home).push(BundleLayout(home / "bundle-0"), "digits")


def _no_version_or_a_whole_one(home: Path) -> None:
    registry = LocalRegistry(home)
    assert registry.list() in ((), ("digits",))
    for number, version in enumerate(registry.versions("digits")):
        registry.pull(version.reference, home / f"pulled-{number}").verify()
    _push(home)
    assert [version.version for version in registry.versions("digits")] == ["1"]


def test_a_push_killed_anywhere_leaves_no_version_or_a_whole_one(home: Path) -> None:
    (points,) = elsewhere(
        cut_at_every_point, home, _make_bundle, _push, _no_version_or_a_whole_one, 5
    )
    assert points >= 50


def _put_without_room(home: Path) -> str:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    with pytest.raises(StorageFullError) as caught:
        _put(home)
    return str(caught.value)


def test_without_room_nothing_is_left(home: Path) -> None:
    (told,) = elsewhere(_put_without_room, home)
    assert "cure: " in told
    assert DirectoryBlobStore(home).size(BLOB.digest) is None
    assert _files(home / "registry") == []
    assert _files(home / "partial") == []


def test_several_processes_put_the_same_blob(home: Path) -> None:
    elsewhere(_put, home, workers=3)
    assert DirectoryBlobStore(home).read_bytes(BLOB.digest, max_bytes=len(DATA)) == DATA
    assert _files(home / "registry") == [BLOB.digest.removeprefix("sha256:")]


def test_a_stored_blob_is_nobodys_to_write(home: Path) -> None:
    _put(home)
    mode = (home / "registry" / blob_path(BLOB.digest)).stat().st_mode
    assert not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)


def test_memory_stays_flat(home: Path) -> None:
    (grown_bytes,) = elsewhere(_put_a_large_one, home)
    assert grown_bytes < 16 << 20


def _put_a_large_one(home: Path) -> int:
    """How much more memory a process needed at most, to put a blob of 200 MB."""
    source = home / "large"
    home.mkdir(parents=True)
    with source.open("wb") as stream:
        stream.truncate(200_000_000)
    digest, size = digest_of_file(source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    blob = Descriptor(media_type="", digest=digest, size=size)
    DirectoryBlobStore(home).put(blob, lambda: source.open("rb", buffering=0))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def test_a_root_that_is_a_file_is_named_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="choose a root that is a folder"):
        DirectoryBlobStore(tmp_path / "file" / "fleet").put(BLOB, lambda: io.BytesIO(DATA))
