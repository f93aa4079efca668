"""Sources: places that hold blobs below ``blobs/sha256/<hex>``, and the errors their refusals mean.

A source yields bytes and promises nothing about them: the store checks. What a source raises, when
opened or read, is one of

- `NotFoundError`: it hasn't got the blob, and asking again won't help;
- `AccessDeniedError`, `AccessExpiredError`: it won't give it to this identity;
- `IntegrityError`: what it begins to give is not what was asked for;
- `UnavailableError`, `ThrottledError`: not now.

Several threads may open blobs of one source at once; each stream belongs to one of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from edgefleet_runtime.closing import Closing


class BlobStream(Closing):
    """Bytes of one blob, from some offset to its end."""

    start: int
    """Offset of the first byte: the one asked for, or 0 from a source that can't begin there."""

    @abstractmethod
    def read(self, max_bytes: int) -> bytes:
        """The next bytes; empty at the end."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the connection or file."""


class Source(ABC):
    """A place that holds blobs."""

    address: str
    """As the pointer writes it."""

    @abstractmethod
    def open(self, digest: str, offset: int) -> BlobStream:
        """Begin to read a blob at an offset in bytes."""
