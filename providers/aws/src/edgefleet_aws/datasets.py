"""Training data in S3: sent once, found again by the digest of what they hold.

Files lie below ``PREFIX/training/data/<digest>/``, where the digest is over names and contents. A
folder that was sent before is not sent again; an interrupted one goes on file by file.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from boto3.s3.transfer import TransferConfig

from edgefleet.errors import InvalidInputError, LimitExceededError
from edgefleet.protocol.digest import digest_of_file, hex_of

if TYPE_CHECKING:
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

SENDERS = 8  # files under way at once
MAX_FILES = 1_000_000


class Channel(NamedTuple):
    """Where a job finds its data.

    Attributes:
        address: prefix in S3.
        inside: what the script is shown of it: ``.`` for all, or the one file's name.
        digest: of the content; None for data that lay in S3 already.
    """

    address: str
    inside: str
    digest: str | None


def bring(data: Path | str, clients: Clients, settings: AwsSettings) -> Channel:
    """Bring a job's data to S3, unless they are there.

    Raises:
        InvalidInputError: there are none, or the address is no S3 address.
        LimitExceededError: they don't fit on a training machine's disk.
    """
    if isinstance(data, str) and data.startswith("s3://"):
        return Channel(data, ".", None)
    path = Path(data)
    if not path.exists():
        raise InvalidInputError(
            f"no training data at {data!s}", cure="give a file, a folder, or an s3:// address"
        )
    root = path.parent if path.is_file() else path
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise InvalidInputError(
            f"no file in {path}", cure="put the data there, or leave `data` out"
        )
    total = sum(file.stat().st_size for file in files)
    if len(files) > MAX_FILES or total > settings.training_volume_gib << 30:
        raise LimitExceededError(
            f"{path} has {len(files)} files of {total / 2**30:.1f} GiB",
            cure="raise `training_volume_gib` in the profile, or pack many files into few",
        )
    digest = _digest(root, files)
    prefix = f"{settings.prefix}/training/data/{digest}/"
    _send(root, files, prefix, clients, settings)
    inside = path.name if path.is_file() else "."
    return Channel(f"s3://{settings.bucket}/{prefix}", inside, digest)


def _digest(root: Path, files: list[Path]) -> str:
    hasher = hashlib.sha256()
    for file in files:
        name = file.relative_to(root).as_posix().encode()
        hasher.update(b"%d " % len(name) + name + hex_of(digest_of_file(file)[0]).encode())
    return hasher.hexdigest()


def _send(
    root: Path, files: list[Path], prefix: str, clients: Clients, settings: AwsSettings
) -> None:
    s3, bucket = clients.s3, settings.bucket
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    there = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}
    named = {prefix + file.relative_to(root).as_posix(): file for file in files}
    missing = {key: file for key, file in named.items() if there.get(key) != file.stat().st_size}
    config = TransferConfig(use_threads=False)

    def send(key: str) -> None:
        s3.upload_file(str(missing[key]), bucket, key, Config=config)

    with ThreadPoolExecutor(SENDERS, thread_name_prefix="edgefleet-data") as pool:
        for done in [pool.submit(send, key) for key in missing]:
            done.result()
