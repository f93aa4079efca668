"""What a run left, brought to this machine with care: it comes from outside.

Files only, nothing outside the folder, no more than fits the limits. The folder appears when it is
complete.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import IntegrityError, InvalidInputError, LimitExceededError
from edgefleet.protocol.names import check_path

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 64 << 30  # of all files
MAX_FILES = 100_000


class Arriving:
    """Outputs while they arrive.

    Args:
        folder: an empty folder for them.
        address: where they come from, for errors.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self._address = folder, address
        self._bytes = self._count = 0

    def place(self, name: str, size: int) -> Path:
        """Where a file or folder of that name goes.

        Args:
            name: below the folder, with slashes.
            size: bytes.

        Raises:
            IntegrityError: it lies outside.
            LimitExceededError: all together is too much.
        """
        self._count, self._bytes = self._count + 1, self._bytes + size
        if self._count > MAX_FILES or self._bytes > MAX_BYTES:
            raise LimitExceededError(
                f"{self._address} holds more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB",
                cure="let the script keep less in EDGEFLEET_OUTPUT_DIR",
            )
        try:
            return self.folder / check_path(name)
        except InvalidInputError as error:
            msg = f"{self._address} holds {name!r}: {error.message}"
            raise IntegrityError(msg) from error


@contextmanager
def arriving(folder: Path, address: str) -> Iterator[Arriving]:
    """Give outputs a place; the folder is there when the block has ended well.

    Args:
        folder: doesn't exist yet; where another process was first, its content is kept.
        address: where they come from, for errors.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "outputs"
        fresh.mkdir()
        yield Arriving(fresh, address)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def drop(folder: Path) -> None:
    """Remove outputs that arrived; interrupted, they are gone or whole."""
    with (
        suppress(FileNotFoundError),
        tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch,
    ):
        folder.rename(Path(scratch) / "outputs")
