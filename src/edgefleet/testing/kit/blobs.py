"""What a blob store must do: bytes by digest, whole and right or not there at all."""

from __future__ import annotations

import io
from functools import partial
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from edgefleet.errors import IntegrityError, InvalidInputError, NotFoundError
from edgefleet.interfaces.blobs import BlobStore
from edgefleet.protocol.digest import CHUNK_BYTES, blob_path, digest_of
from edgefleet.protocol.pointer import check_source
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.gaps import Conformance

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 300_000  # bytes of the blobs used here
LARGE = 3 * CHUNK_BYTES + 1  # bytes of one that is read in several chunks


class BlobStoreConformance(Conformance):
    """Fixtures: ``blobs``, an empty store; ``fetch`` where sources aren't files or HTTP."""

    @pytest.fixture
    def blobs(self) -> BlobStore:
        """An empty blob store."""
        return self.lacks("blobs", "an empty blob store for each test")

    @pytest.fixture
    def fetch(self) -> Callable[[str], bytes]:
        """Reads an address below a source as a device would, with a device's access."""
        return partial(_fetch, self)

    def test_a_blob_reads_back_as_put(self, blobs: BlobStore) -> None:
        """If this fails, bytes are recoded on their way, the wrong ones are opened, or chunks of
        `checked_chunks` are kept: each holds until the next only; `checked_bytes` gives the whole.
        """
        for data in (b"", b"x", samples.noise(SIZE, 1), samples.noise(LARGE, 1)):
            descriptor = samples.descriptor_of(data)
            assert blobs.put(descriptor, lambda data=data: io.BytesIO(data))  # type: ignore[misc]
            assert blobs.size(descriptor.digest) == len(data)
            assert _read(blobs, descriptor.digest) == samples.Content.of(data)

    def test_a_blob_that_is_there_is_not_sent_again(self, blobs: BlobStore) -> None:
        """If this fails, `_size` doesn't find what `_put` stored: pushes would never resume."""
        data = samples.noise(SIZE, 1)
        descriptor = samples.descriptor_of(data)
        assert blobs.put(descriptor, lambda: io.BytesIO(data))

        def refuse() -> BinaryIO:
            pytest.fail("the source was opened again")

        assert not blobs.put(descriptor, refuse)

    def test_a_missing_blob_has_no_size_and_does_not_open(self, blobs: BlobStore) -> None:
        """If this fails, your vendor's "not found" isn't mapped to `NotFoundError`."""
        digest = digest_of(b"never put")
        assert blobs.size(digest) is None
        with pytest.raises(NotFoundError):
            _read(blobs, digest)
        with pytest.raises(NotFoundError):
            blobs.read_bytes(digest, max_bytes=100)

    @pytest.mark.parametrize("wrong", ["other", "short", "long", "empty"])
    def test_wrong_content_is_refused_and_stays_invisible(
        self, blobs: BlobStore, wrong: str
    ) -> None:
        """If this fails, `_put` stores before it has checked: read through `checked_chunks`, and
        make the blob visible last.
        """
        data = samples.noise(SIZE, 1)
        given = {
            "other": samples.noise(SIZE, 2),
            "short": data[:-1],
            "long": data + b"x",
            "empty": b"",
        }[wrong]
        descriptor = samples.descriptor_of(data)
        with pytest.raises(IntegrityError):
            blobs.put(descriptor, lambda: io.BytesIO(given))
        assert blobs.size(descriptor.digest) is None
        with pytest.raises(NotFoundError):
            _read(blobs, descriptor.digest)
        assert blobs.put(descriptor, lambda: io.BytesIO(data))
        assert _read(blobs, descriptor.digest) == samples.Content.of(data)

    def test_an_interrupted_put_leaves_nothing_visible(self, blobs: BlobStore) -> None:
        """If this fails, a push that is killed halfway leaves a torn blob under its digest."""
        data = samples.noise(SIZE, 1)
        descriptor = samples.descriptor_of(data)
        with pytest.raises(_PulledPlugError):
            blobs.put(descriptor, lambda: _Interrupted(data, after=SIZE // 2))
        assert blobs.size(descriptor.digest) is None
        assert blobs.put(descriptor, lambda: io.BytesIO(data))
        assert _read(blobs, descriptor.digest) == samples.Content.of(data)

    @pytest.mark.parametrize("offset", [0, 1, SIZE // 2, SIZE - 1, SIZE])
    def test_reading_starts_at_the_offset(self, blobs: BlobStore, offset: int) -> None:
        """If this fails, ranges are off by one, ignored, or the end of a blob answers 416."""
        data = samples.noise(SIZE, 1)
        descriptor = samples.descriptor_of(data)
        blobs.put(descriptor, lambda: io.BytesIO(data))
        assert _read(blobs, descriptor.digest, offset=offset) == samples.Content.of(data[offset:])

    def test_a_negative_offset_is_refused(self, blobs: BlobStore) -> None:
        """If this fails, your store overrides a check that `BlobStore` makes."""
        with pytest.raises(InvalidInputError):
            blobs.open(digest_of(b"x"), offset=-1)

    @pytest.mark.parametrize("digest", ["", "sha256:xyz", "../../etc/passwd", "md5:" + 32 * "0"])
    def test_what_is_no_digest_is_refused(self, blobs: BlobStore, digest: str) -> None:
        """If this fails, a name from outside reaches your vendor's paths unchecked."""
        with pytest.raises(InvalidInputError):
            blobs.size(digest)
        with pytest.raises(InvalidInputError):
            blobs.open(digest)

    def test_progress_adds_up_to_the_size(self, blobs: BlobStore) -> None:
        """If this fails, a bar over a push stops short of its end, or runs past it."""
        data = samples.noise(SIZE, 1)
        descriptor = samples.descriptor_of(data)
        for _ in ("sent", "skipped"):
            steps: list[int] = []
            blobs.put(descriptor, lambda: io.BytesIO(data), progress=steps.append)
            assert sum(steps) == len(data)

    def test_the_same_blob_put_by_many_at_once_is_whole(self, blobs: BlobStore) -> None:
        """If this fails, two pushes of one model share a temporary name, or one breaks."""
        data = samples.noise(SIZE, 1)
        descriptor = samples.descriptor_of(data)

        def put(_: int) -> object:
            return blobs.put(descriptor, lambda: io.BytesIO(data))

        samples.at_once([partial(put, n) for n in range(4)])
        assert _read(blobs, descriptor.digest) == samples.Content.of(data)

    def test_sources_are_stable_addresses_without_secrets(self, blobs: BlobStore) -> None:
        """If this fails, a signed URL or a key would travel in pointers, and end up in logs."""
        assert blobs.sources
        for source in blobs.sources:
            assert check_source(source) == source
        assert blobs.sources == blobs.sources
        assert len(samples.pointer(1).encoded()) + sum(map(len, blobs.sources)) < 1024

    def test_a_device_finds_a_blob_below_a_source(
        self, blobs: BlobStore, fetch: Callable[[str], bytes]
    ) -> None:
        """If this fails, blobs lie elsewhere than at ``<source>/blobs/sha256/<hex>``, where devices
        look, or a device's access can't read them.
        """
        data = samples.noise(1000, 1)
        descriptor = samples.descriptor_of(data)
        blobs.put(descriptor, lambda: io.BytesIO(data))
        for source in blobs.sources:
            assert fetch(f"{source.rstrip('/')}/{blob_path(descriptor.digest)}") == data


class _PulledPlugError(Exception):
    """The cable is out."""


class _Interrupted(io.BytesIO):
    """A source that fails after so many bytes."""

    def __init__(self, data: bytes, *, after: int) -> None:
        super().__init__(data[:after])

    def _checked(self, count: int) -> int:
        if not count:
            raise _PulledPlugError
        return count

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._checked(len(data))
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        return self._checked(super().readinto(buffer))


def _read(blobs: BlobStore, digest: str, *, offset: int = 0) -> samples.Content:
    with blobs.open(digest, offset=offset) as stream:
        return samples.Content.of(b"".join(iter(lambda: stream.read(1 << 16), b"")))


def _fetch(suite: BlobStoreConformance, address: str) -> bytes:
    scheme = urlsplit(address).scheme
    if scheme not in ("file", "http", "https"):
        suite.lacks("fetch", f"reads a {scheme} address as a device would")
    with urlopen(address) as stream:  # noqa: S310 - the scheme was looked at
        data: bytes = stream.read()
    return data
