"""Training data in S3: sent once, found again by the digest of what they hold.

Files lie below ``PREFIX/training/data/<digest>/``, where the digest is over names and contents. A
folder that was sent before is not sent again; an interrupted one goes on file by file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from boto3.s3.transfer import TransferConfig

from edgefleet.interfaces.training_data import Channel, find_data

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings


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
    s3, bucket = clients.s3, settings.bucket
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    there = {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", ())}
    config = TransferConfig(use_threads=False)

    def send(key: str, file: Path) -> None:
        s3.upload_file(str(file), bucket, key, Config=config)

    found.send_missing(prefix, there, send)
    return Channel(f"s3://{settings.bucket}/{prefix}", found.inside, found.digest)
