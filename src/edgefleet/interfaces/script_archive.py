"""The archive of a script's folder that goes along with a job: the same for the same files.

What is left out: hidden files and folders, Python's caches, links. What is too large is refused:
data belong in ``data``, which is sent once and not with every job.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet import training
from edgefleet.errors import LimitExceededError
from edgefleet.interfaces.training_entry import HELPER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_BYTES = 64 << 20  # of all files together
MAX_FILES = 5_000
_LEFT_OUT = {"__pycache__", "node_modules", "venv"}


def pack(folder: Path) -> bytes:
    """A tar.gz with the folder's files below ``source`` and `edgefleet.training` beside them.

    Raises:
        LimitExceededError: too many files, or too large.
    """

    def members() -> Iterator[tuple[str, bytes]]:
        total = 0
        for count, path in enumerate(_files(folder), 1):
            total += path.stat().st_size
            if count > MAX_FILES or total > MAX_BYTES:
                raise LimitExceededError(
                    f"the script's folder {folder} has more than {MAX_FILES} files or "
                    f"{MAX_BYTES >> 20} MiB",
                    cure="move the script into a folder of its own; give data as `data`",
                )
            yield f"source/{path.relative_to(folder).as_posix()}", path.read_bytes()
        yield f"{HELPER}/edgefleet/__init__.py", b""
        yield f"{HELPER}/edgefleet/training.py", Path(str(training.__file__)).read_bytes()

    return _packed(members())


def pack_files(files: Iterable[Path]) -> bytes:
    """A tar.gz as of `pack`, with some files of our own and no helper beside them."""
    return _packed((f"source/{path.name}", path.read_bytes()) for path in files)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _LEFT_OUT or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file() and path.suffix != ".pyc":
            yield path


def _packed(members: Iterable[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()
