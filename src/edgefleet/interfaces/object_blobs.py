"""Blobs as objects of a vendor's object storage: small ones go whole, larger ones go on.

Rules kept here:

- A blob appears when it is whole and its bytes have hashed to its name, and never before. Nobody
  overwrites it: whoever finds it there leaves it.
- An upload that was interrupted goes on. One that somebody else ended is begun anew, `MAX_TRIES`
  times, unless the blob is there by then.
- What was there before wasn't written by us: it must have the right size at least.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, BinaryIO, ClassVar, cast

from edgefleet.errors import IntegrityError, UnavailableError
from edgefleet.interfaces.blobs import BlobStore, missing
from edgefleet.interfaces.sending import Told
from edgefleet.protocol.digest import blob_path
from edgefleet.protocol.layout import checked_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.resuming import ResumingStream
    from edgefleet.protocol.bundle import Descriptor

    Progress = Callable[[int], object]

MAX_TRIES = 3  # of an upload that somebody else ended meanwhile


class ObjectBlobStore(BlobStore):
    """Blobs below the first of its sources, at ``blobs/sha256/<hex>``.

    Args:
        sources: stable addresses, the store's own first.
        whole_bytes: blobs up to this size go in one request.
    """

    where: ClassVar[str]
    """Where blobs lie, for people, such as ``in S3``."""
    ended_cure: ClassVar[str]
    """What to do where somebody ends uploads again and again."""

    def __init__(self, sources: tuple[str, ...], *, whole_bytes: int) -> None:
        self._sources = sources
        self._whole_bytes = whole_bytes

    @property
    def sources(self) -> tuple[str, ...]:
        return self._sources

    @abstractmethod
    def _stored_size(self, digest: str) -> int:
        """Size of a blob's object, in bytes."""

    @abstractmethod
    def _stream(self, digest: str, offset: int) -> ResumingStream:
        """A blob's bytes from an offset on."""

    @abstractmethod
    def _is_missing(self, error: Exception) -> bool:
        """Whether an error of the two above means that there is no such object."""

    @abstractmethod
    def _put_whole(self, descriptor: Descriptor, data: bytes) -> None:
        """Store a blob in one request; no error where it is there."""

    @abstractmethod
    def _send(self, source: Callable[[], BinaryIO], descriptor: Descriptor, told: Told) -> bool:
        """Send what is missing and have it shown; False where somebody ended the upload.

        No error where the blob is there.

        Raises:
            IntegrityError: the source holds other bytes.
        """

    def _size(self, digest: str) -> int | None:
        try:
            return self._stored_size(digest)
        except Exception as error:
            if self._is_missing(error):
                return None
            raise

    def _open(self, digest: str, offset: int) -> BinaryIO:
        try:
            return cast("BinaryIO", self._stream(digest, offset))
        except Exception as error:
            if self._is_missing(error):
                raise missing(digest) from error
            raise

    def _put(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        progress: Progress | None,
    ) -> None:
        told = Told(progress)
        if descriptor.size <= self._whole_bytes:
            with source() as stream:
                data = checked_bytes(stream, descriptor)
            self._put_whole(descriptor, data)
            self._check_size(descriptor)
            told.up_to(len(data))
            return
        for _ in range(MAX_TRIES):
            if self._send(source, descriptor, told):
                self._check_size(descriptor)
                return
            if self._size(descriptor.digest) == descriptor.size:  # whoever ended it completed it
                told.up_to(descriptor.size)
                return
        raise UnavailableError(
            f"uploads of blob {descriptor.digest} kept being ended by somebody else",
            cure=self.ended_cure,
        )

    def _check_size(self, descriptor: Descriptor) -> None:
        there = self._size(descriptor.digest)
        if there != descriptor.size:
            raise IntegrityError(
                f"blob {descriptor.digest} has {there} bytes {self.where} and should have "
                f"{descriptor.size}: something else wrote it",
                cure=f"delete {self._sources[0]}/{blob_path(descriptor.digest)} and push again",
            )
