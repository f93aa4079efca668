"""What a run left, brought to this machine: SageMaker's archive, unpacked with care."""

from __future__ import annotations

import io
import shutil
import tarfile
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import urlsplit

from edgefleet.errors import IntegrityError
from edgefleet.interfaces.run_outputs import arriving
from edgefleet_aws.errors import code_of
from edgefleet_aws.reading import ObjectStream

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.interfaces.run_outputs import Arriving
    from edgefleet_aws.clients import S3


def fetch(s3: S3, address: str, folder: Path) -> None:
    """Unpack the tar.gz at an S3 address into a folder that doesn't exist yet.

    Raises:
        IntegrityError: the archive is damaged, or would write outside the folder.
        LimitExceededError: it holds too much.
    """
    with arriving(folder, address) as fresh:
        parts = urlsplit(address)
        try:
            stream = ObjectStream(s3, {"Bucket": parts.netloc, "Key": parts.path[1:]}, 0)
        except Exception as error:
            if code_of(error) != "NoSuchKey":
                raise
        else:  # a job that left nothing has no archive
            with io.BufferedReader(stream, 1 << 20) as buffered:
                _unpack(cast("BinaryIO", buffered), fresh, address)


def _unpack(stream: BinaryIO, to: Arriving, address: str) -> None:
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./").rstrip("/")
                if name in {"", "."} and member.isdir():
                    continue
                if not (member.isfile() or member.isdir()):
                    msg = f"{address} holds {member.name!r}, which is no file and no folder"
                    raise IntegrityError(msg)
                path = to.place(name, member.size)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                with path.open("xb") as target:
                    if content is not None:
                        shutil.copyfileobj(content, target, 1 << 20)
    except (tarfile.TarError, EOFError, FileExistsError, NotADirectoryError) as error:
        raise IntegrityError(f"{address} is no archive as SageMaker makes them: {error}") from error
