from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.tests.support import Repository
from edgefleet.errors import IntegrityError, NotFoundError, StorageFullError
from edgefleet.protocol.bundle import WEIGHT_MEDIA_TYPE, Descriptor
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet_runtime.store import eviction
from edgefleet_runtime.store.blobs import BlobStore


def descriptor(data: bytes) -> Descriptor:
    return Descriptor(media_type=WEIGHT_MEDIA_TYPE, digest=digest_of(data), size=len(data))


def put(store: BlobStore, data: bytes) -> str:
    with store.partial(digest_of(data)) as partial:
        partial.write(data)
        partial.commit()
    return digest_of(data)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "root", 1000)


def test_what_was_committed_is_read_back(store: BlobStore) -> None:
    digest = put(store, b"hello")
    assert digest in store
    assert store.have() == {digest}
    assert store.read(descriptor(b"hello")) == b"hello"


def test_content_that_hashes_to_something_else_is_thrown_away(store: BlobStore) -> None:
    wanted = digest_of(b"wanted")
    with store.partial(wanted) as partial:
        partial.write(b"other")
        with pytest.raises(IntegrityError):
            partial.commit()
    assert wanted not in store
    assert store.partial_bytes(wanted) == 0


def test_a_partial_blob_goes_on_where_it_stopped(store: BlobStore) -> None:
    digest = digest_of(b"hello world")
    with store.partial(digest) as partial:
        partial.write(b"hello ")
    with store.partial(digest) as partial:
        assert partial.offset == 6
        partial.write(b"world")
        partial.commit()
    assert digest in store


def test_a_damaged_blob_is_removed_and_the_file_named(store: BlobStore) -> None:
    digest = put(store, b"hello")
    path = store.path_of(digest)
    path.chmod(0o644)
    path.write_bytes(b"hullo")
    with pytest.raises(IntegrityError, match=r"weights\.bin"):
        store.verify(descriptor(b"hello"), name="weights.bin")
    assert digest not in store


def test_a_missing_blob_is_not_found(store: BlobStore) -> None:
    with pytest.raises(NotFoundError):
        store.verify(descriptor(b"absent"))


def test_the_least_recently_used_goes_first_and_pinned_ones_never(store: BlobStore) -> None:
    old, pinned, fresh = (put(store, bytes([n]) * 300) for n in range(3))
    for age, digest in ((30, pinned), (20, old), (10, fresh)):
        path = store.path_of(digest)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    store.pin("running", [pinned])
    store.make_room(300)
    assert store.have() == {pinned, fresh}


def test_room_that_pins_leave_no_way_to_make_is_refused_and_nothing_removed(
    store: BlobStore,
) -> None:
    pinned, other = put(store, b"a" * 600), put(store, b"b" * 300)
    store.pin("running", [pinned])
    with pytest.raises(StorageFullError, match="cap is 1000 bytes and 600"):
        store.make_room(500)
    assert store.have() == {pinned, other}


def test_a_full_disk_leaves_nothing_half(store: BlobStore, tmp_path: Path) -> None:
    def fetch() -> None:
        with store.partial(digest_of(b"x" * 100)) as partial:
            partial.write(b"x")
            partial._stream.close()
            partial._stream = os.fdopen(os.open("/dev/full", os.O_RDWR), "r+b", buffering=0)
            partial.write(b"x" * 99)

    with pytest.raises(StorageFullError) as caught:
        fetch()
    assert caught.value.retryable
    assert store.have() == frozenset()
    assert list((tmp_path / "root" / "partial").iterdir()) == []


def test_opening_sweeps_what_a_crash_left(tmp_path: Path) -> None:
    root = tmp_path / "root"
    store = BlobStore(root, 1000)
    digest = put(store, b"hello")
    unfinished = digest_of(b"unfinished")
    with store.partial(unfinished) as partial:
        partial.write(b"unfin")
    (root / "materialized" / ".staging-x").mkdir()
    (root / "blobs" / "sha256" / "stray").write_bytes(b"?")
    (root / "blobs" / "sha256" / hex_of(unfinished)).symlink_to("/etc/hostname")
    again = BlobStore(root, 1000)
    assert again.have() == {digest}
    assert again.partial_bytes(unfinished) == 5
    assert list((root / "materialized").iterdir()) == []


def test_a_variant_is_laid_out_as_links_and_mended_when_damaged(tmp_path: Path) -> None:
    layout = Repository(tmp_path / "fleet").fake()
    manifest = layout.manifest("fp32")
    store = BlobStore(tmp_path / "root", 1 << 20)
    for blob in layout.blobs():
        put(store, layout.path_of(blob).read_bytes())
    digest = layout.variant("fp32").manifest.digest
    used = store.used_bytes()
    folder = store.materialize(digest, manifest)
    file = folder / "model.json"
    assert file.stat().st_nlink == 2
    assert store.used_bytes() == used
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(b"damaged")
    assert store.materialize(digest, manifest) == folder
    assert file.read_bytes() == content


def test_an_unused_folder_of_links_goes_before_any_blob(tmp_path: Path) -> None:
    layout = Repository(tmp_path / "fleet").fake()
    store = BlobStore(tmp_path / "root", 1 << 20)
    for blob in layout.blobs():
        put(store, layout.path_of(blob).read_bytes())
    folder = store.materialize(layout.variant("fp32").manifest.digest, layout.manifest("fp32"))
    store.max_bytes = store.used_bytes()
    store.make_room(1)
    assert not folder.exists()


entries = st.lists(
    st.builds(
        eviction.Entry,
        name=st.uuids().map(str),
        bytes=st.integers(0, 100),
        used_at=st.floats(0, 100),
        pinned=st.booleans(),
    ),
    max_size=12,
)


@given(entries, st.integers(0, 400), st.integers(0, 600))
def test_eviction_makes_room_without_touching_pins_or_says_it_cannot(
    files: list[eviction.Entry], needed: int, cap: int
) -> None:
    chosen = eviction.choose(files, needed=needed, max_bytes=cap)
    pinned = sum(entry.bytes for entry in files if entry.pinned)
    if chosen is None:
        assert pinned + needed > cap
        return
    assert not any(entry.pinned for entry in chosen)
    left = [entry for entry in files if entry not in chosen]
    assert sum(entry.bytes for entry in left) + needed <= cap
    loose = [entry.used_at for entry in left if not entry.pinned]
    assert all(entry.used_at <= min(loose, default=101.0) for entry in chosen)
