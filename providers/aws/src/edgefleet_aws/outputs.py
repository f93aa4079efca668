"""What a run left, brought to this machine: SageMaker's archive, unpacked with care.

A job writes its archive itself, so it is treated as coming from outside: files and folders only,
nothing outside the target, no more than fits the limits. The folder appears when it is complete.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

from edgefleet.errors import IntegrityError, InvalidInputError, LimitExceededError
from edgefleet.protocol.names import check_path
from edgefleet_aws.errors import code_of
from edgefleet_aws.reading import ObjectStream

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_aws.clients import S3

MAX_BYTES = 64 << 30  # unpacked
MAX_FILES = 100_000


def fetch(s3: S3, address: str, folder: Path) -> None:
    """Unpack the tar.gz at an S3 address into a folder that doesn't exist yet.

    Raises:
        IntegrityError: the archive is damaged, or would write outside the folder.
        LimitExceededError: it holds too much.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh = folder.parent / scratch / "outputs"
        fresh.mkdir()
        parts = urlsplit(address)
        try:
            stream = ObjectStream(s3, {"Bucket": parts.netloc, "Key": parts.path[1:]}, 0)
        except Exception as error:
            if code_of(error) != "NoSuchKey":
                raise
        else:  # a job that left nothing has no archive
            with io.BufferedReader(stream, 1 << 20) as buffered:
                _unpack(cast("BinaryIO", buffered), fresh, address)
        try:
            fresh.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise


def _unpack(stream: BinaryIO, to: Path, address: str) -> None:
    total = count = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for member in archive:
                count, total = count + 1, total + member.size
                if count > MAX_FILES or total > MAX_BYTES:
                    raise LimitExceededError(
                        f"{address} holds more than {MAX_FILES} files or {MAX_BYTES >> 30} GiB",
                        cure="let the script keep less in EDGEFLEET_OUTPUT_DIR",
                    )
                path = _place(member, to, address)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                with path.open("xb") as target:
                    if content is not None:
                        shutil.copyfileobj(content, target, 1 << 20)
    except (tarfile.TarError, EOFError, FileExistsError) as error:
        raise IntegrityError(f"{address} is no archive as SageMaker makes them: {error}") from error


def _place(member: tarfile.TarInfo, to: Path, address: str) -> Path:
    name = member.name.removeprefix("./").rstrip("/")
    if name in {"", "."} and member.isdir():
        return to
    if not (member.isfile() or member.isdir()):
        raise IntegrityError(f"{address} holds {member.name!r}, which is no file and no folder")
    try:
        return to / check_path(name)
    except InvalidInputError as error:
        raise IntegrityError(f"{address} holds {member.name!r}: {error.message}") from error
