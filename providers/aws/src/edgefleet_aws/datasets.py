"""Training data in S3: sent once, found again by the digest of what they hold.

Files lie below ``PREFIX/training/data/<digest>/``, where the digest is over names and contents. A
folder that was sent before is not sent again; an interrupted one goes on file by file.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from boto3.s3.transfer import TransferConfig

from edgefleet.interfaces.training_data import find_data

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.interfaces.training_data import TrainingData
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

SENDERS = 8  # files under way at once


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
    found = find_data(
        data,
        takes="an s3:// address",
        max_bytes=settings.training_volume_gib << 30,
        cure="raise `training_volume_gib` in the profile, or pack many files into few",
    )
    prefix = f"{settings.prefix}/training/data/{found.digest}/"
    _send(found, prefix, clients, settings)
    return Channel(f"s3://{settings.bucket}/{prefix}", found.inside, found.digest)


def _send(found: TrainingData, prefix: str, clients: Clients, settings: AwsSettings) -> None:
    s3, bucket = clients.s3, settings.bucket
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    there = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}
    named = found.named(prefix).items()
    missing = {key: file for key, file in named if there.get(key) != file.stat().st_size}
    config = TransferConfig(use_threads=False)

    def send(key: str) -> None:
        s3.upload_file(str(missing[key]), bucket, key, Config=config)

    with ThreadPoolExecutor(SENDERS, thread_name_prefix="edgefleet-data") as pool:
        for done in [pool.submit(send, key) for key in missing]:
            done.result()
