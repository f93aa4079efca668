"""Training data on this machine: which files, and the digest of what they hold.

A trainer sends them once, to a place named by the digest, and finds them there the next time.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import InvalidInputError, LimitExceededError
from edgefleet.protocol.digest import digest_of_file, hex_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_FILES = 1_000_000
SENDERS = 8  # files under way at once


class Channel(NamedTuple):
    """Where a job finds its data.

    Attributes:
        address: that the service which runs the job reads them from.
        inside: what the script is shown of them: ``.`` for all, or the one file's name.
        digest: of the content; None for data that lay there already.
    """

    address: str
    inside: str
    digest: str | None


class TrainingData(NamedTuple):
    """Files that a run trains on.

    Attributes:
        root: folder that names start from.
        files: below it.
        inside: what the script is shown of the folder: ``.`` for all, or the one file's name.
        size: bytes of all files.
        digest: over names and contents, in hexadecimal.
    """

    root: Path
    files: tuple[Path, ...]
    inside: str
    size: int
    digest: str

    def named(self, prefix: str) -> dict[str, Path]:
        """Every file by its name below a prefix of an object store."""
        return {prefix + file.relative_to(self.root).as_posix(): file for file in self.files}

    def send_missing(
        self, prefix: str, there: Mapping[str, int], send: Callable[[str, Path], object]
    ) -> None:
        """Send the files that aren't there in their size, several at once.

        Args:
            prefix: of their names in an object store.
            there: what is below it already: size in bytes by name.
            send: sends one, by name; called in several threads.
        """
        named = self.named(prefix).items()
        missing = [(name, file) for name, file in named if there.get(name) != file.stat().st_size]
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="edgefleet-data") as pool:
            for done in [pool.submit(send, name, file) for name, file in missing]:
                done.result()


def find_data(
    data: Path | str, *, takes: str, max_bytes: int | None = None, cure: str | None = None
) -> TrainingData:
    """The files at a path.

    Args:
        data: a file or a folder.
        takes: the kinds of address that the trainer takes beside paths, for an error.
        max_bytes: of all files together; None for no limit.
        cure: what helps against too many bytes.

    Raises:
        InvalidInputError: there are none.
        LimitExceededError: there are too many, or they are too large.
    """
    path = Path(data)
    if not path.exists():
        raise InvalidInputError(
            f"no training data at {data!s}", cure=f"give a file, a folder, or {takes}"
        )
    root = path.parent if path.is_file() else path
    files = (path,) if path.is_file() else tuple(sorted(p for p in path.rglob("*") if p.is_file()))
    if not files:
        raise InvalidInputError(
            f"no file in {path}", cure="put the data there, or leave `data` out"
        )
    size = sum(file.stat().st_size for file in files)
    if len(files) > MAX_FILES or (max_bytes is not None and size > max_bytes):
        raise LimitExceededError(
            f"{path} has {len(files)} files of {size / 2**30:.1f} GiB",
            cure=cure or "pack many files into few",
        )
    hasher = hashlib.sha256()
    for file in files:
        name = file.relative_to(root).as_posix().encode()
        hasher.update(b"%d " % len(name) + name + hex_of(digest_of_file(file)[0]).encode())
    inside = path.name if path.is_file() else "."
    return TrainingData(root, files, inside, size, hasher.hexdigest())
