"""Blobs in a folder of this machine."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgefleet.errors import AccessDeniedError, NotFoundError, UnavailableError, UnsupportedError
from edgefleet.protocol.digest import blob_path
from edgefleet_runtime.store.sources import BlobStream, Source


class FolderSource(Source):
    """A folder on this machine: a fleet's directory, a mounted share, a USB stick."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.netloc not in ("", "localhost"):
            raise UnsupportedError(
                f"{address} names a folder of another machine",
                cure="mount it and write file:///path",
            )
        self.address = address
        self._root = Path(unquote(parts.path))

    def open(self, digest: str, offset: int) -> BlobStream:
        return _FileStream(self._root, digest, offset)


class _FileStream(BlobStream):
    def __init__(self, root: Path, digest: str, offset: int) -> None:
        try:
            self._stream = (root / blob_path(digest)).open("rb", buffering=0)
        except FileNotFoundError as error:
            if root.is_dir():
                raise NotFoundError(f"{root} has no blob {digest}") from error
            raise UnavailableError(f"the folder {root} is not there", cure="mount it") from error
        except PermissionError as error:
            raise AccessDeniedError(f"{root} may not be read: {error.strerror}") from error
        except OSError as error:
            raise UnavailableError(f"{root} can't be read: {error.strerror}") from error
        self.start = self._stream.seek(offset)

    def read(self, max_bytes: int) -> bytes:
        try:
            return self._stream.read(max_bytes) or b""
        except OSError as error:
            raise UnavailableError(f"reading {self._stream.name} failed: {error}") from error

    def close(self) -> None:
        self._stream.close()
