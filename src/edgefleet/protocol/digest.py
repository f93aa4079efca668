"""Content addresses: ``sha256:`` and 64 hexadecimal digits, as OCI descriptors write them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import msgspec

from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

PATTERN = r"\Asha256:[0-9a-f]{64}\Z"
Digest = Annotated[str, msgspec.Meta(pattern=PATTERN)]

CHUNK_BYTES = 1 << 20  # bytes read at once: large enough for SHA-256 to dominate
_REGEX = re.compile(PATTERN)


def digest_of(data: bytes | memoryview) -> str:
    """The digest of bytes in memory."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_of_file(
    path: Path | str, *, progress: Callable[[int], object] | None = None
) -> tuple[str, int]:
    """The digest and the size in bytes of a file, read once in chunks.

    Args:
        path: the file.
        progress: called with the number of bytes of each chunk.
    """
    with Path(path).open("rb") as stream:
        return digest_of_stream(stream, progress=progress)


def digest_of_stream(
    stream: BinaryIO, *, progress: Callable[[int], object] | None = None
) -> tuple[str, int]:
    """The digest and length of what is left in a stream."""
    hasher, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK_BYTES))
    while count := stream.readinto(buffer):  # type: ignore[attr-defined]
        hasher.update(buffer[:count])
        size += count
        if progress is not None:
            progress(count)
    return "sha256:" + hasher.hexdigest(), size


def check_digest(text: str) -> str:
    """Return ``text`` if it is a digest.

    Raises:
        InvalidInputError: it is not.
    """
    if not _REGEX.match(text):
        msg = f"not a digest: {text[:100]!r}"
        raise InvalidInputError(msg, cure="write sha256: and 64 lower-case hexadecimal digits")
    return text


def hex_of(digest: str) -> str:
    """The 64 hexadecimal digits of a digest, safe as a file name."""
    return check_digest(digest).removeprefix("sha256:")


def blob_path(digest: str) -> str:
    """Where a blob lies below the root of any store of ours, as in an OCI image layout."""
    return f"blobs/sha256/{hex_of(digest)}"


def short(digest: str) -> str:
    """The first twelve hexadecimal digits, for people."""
    return hex_of(digest)[:12]
