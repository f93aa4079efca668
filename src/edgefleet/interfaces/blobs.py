"""BlobStore: bytes by digest, whatever keeps the versions of a registry."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, BinaryIO, ClassVar, final

from edgefleet.errors import InvalidInputError, NotFoundError
from edgefleet.interfaces.service import Service
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import check_digest, digest_of
from edgefleet.protocol.layout import check_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[int], object]


class BlobStore(Service):
    """Immutable blobs by digest, below one stable address."""

    role: ClassVar[str] = "registry"

    @property
    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """Stable addresses, without secrets, below which devices find ``blobs/sha256/<hex>``."""

    @final
    def size(self, digest: str) -> int | None:
        """Size in bytes of a blob that is there whole; None when it is not there."""
        check_digest(digest)
        with self._boundary("size"):
            return self._size(digest)

    @final
    def put(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        *,
        progress: Progress | None = None,
    ) -> bool:
        """Store a blob; nothing is visible before it is whole and hashes to its digest.

        Args:
            descriptor: digest and size.
            source: opens the bytes from their start; may be called again after a failure.
            progress: called with the bytes of each step.

        Returns:
            False when the blob was there already and nothing was sent.

        Raises:
            IntegrityError: the source holds other bytes than the descriptor says.
        """
        if self.size(descriptor.digest) == descriptor.size:
            if progress is not None:
                progress(descriptor.size)
            return False
        with self._boundary("put"):
            self._put(descriptor, source, progress)
        return True

    @final
    def open(self, digest: str, *, offset: int = 0) -> BinaryIO:
        """Open a blob for reading from an offset; the reader checks the digest.

        Raises:
            NotFoundError: no such blob.
        """
        check_digest(digest)
        if offset < 0:
            msg = "an offset is at least 0"
            raise InvalidInputError(msg)
        with self._boundary("open"):
            return self._open(digest, offset)

    @final
    def put_bytes(self, data: bytes, media_type: str) -> Descriptor:
        """Store a small document as a blob."""
        import io  # noqa: PLC0415

        descriptor = Descriptor(media_type=media_type, digest=digest_of(data), size=len(data))
        self.put(descriptor, lambda: io.BytesIO(data))
        return descriptor

    @final
    def read_bytes(self, digest: str, *, max_bytes: int) -> bytes:
        """Read a small blob and check it.

        Raises:
            NotFoundError: no such blob.
            IntegrityError: other content than the digest says.
        """
        size = self.size(digest)
        if size is None:
            raise missing(digest)
        if size > max_bytes:
            msg = f"blob {digest} has {size} bytes, {max_bytes} are allowed"
            raise InvalidInputError(msg)
        with self.open(digest) as stream, self._boundary("read"):
            data = stream.read(size + 1)
        check_bytes(data, Descriptor(media_type="", digest=digest, size=size))
        return data

    @abstractmethod
    def _size(self, digest: str) -> int | None: ...

    @abstractmethod
    def _put(
        self,
        descriptor: Descriptor,
        source: Callable[[], BinaryIO],
        progress: Progress | None,
    ) -> None:
        """Store the blob, checking what is read with `edgefleet.protocol.files.checked_chunks`.

        Each chunk holds until the next is asked for; `checked_bytes` gives the whole of a blob.
        """

    @abstractmethod
    def _open(self, digest: str, offset: int) -> BinaryIO: ...


def missing(digest: str) -> NotFoundError:
    """The error of a blob that is asked for and isn't there."""
    return NotFoundError(
        f"blob {digest} is not in the registry",
        cure="push the bundle again, missing blobs are sent",
    )
