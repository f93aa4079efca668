from __future__ import annotations

import io
import itertools
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from edgefleet.errors import IntegrityError, UnavailableError
from edgefleet.interfaces.sending import SENDERS
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.samples import Content, noise
from edgefleet_aws.blobs import S3BlobStore
from edgefleet_aws.clients import Clients
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.settings import MIB, AwsSettings

PARTS = 4
DATA = noise((PARTS - 1) * 5 * MIB + 1234, 7)  # three whole parts and a rest
CONTENT = Content.of(DATA)
DESCRIPTOR = Descriptor(media_type="", digest=digest_of(DATA), size=len(DATA))


@pytest.fixture
def settings(make_settings: Callable[..., AwsSettings]) -> AwsSettings:
    return make_settings(part_mib=5, max_attempts=1)


@pytest.fixture
def blobs(clients: Clients, settings: AwsSettings) -> S3BlobStore:
    return S3BlobStore(clients, settings)


def _source() -> BinaryIO:
    return io.BytesIO(DATA)


def _count(cloud: AwsMock, operation: str, settings: AwsSettings, status: str = "200") -> int:
    lines = [line.split(" ") for line in cloud.seen()]
    return sum(
        line[1] == f"s3.{operation}" and line[3] == status and f"/{settings.prefix}/" in line[2]
        for line in lines
    )


def _uploads(clients: Clients, settings: AwsSettings) -> list[str]:
    pages = clients.s3.get_paginator("list_multipart_uploads").paginate(
        Bucket=settings.bucket, Prefix=f"{settings.prefix}/"
    )
    return [upload["UploadId"] for page in pages for upload in page.get("Uploads", ())]


def test_a_large_blob_goes_in_parts_and_reads_back(
    cloud: AwsMock, blobs: S3BlobStore, clients: Clients, settings: AwsSettings
) -> None:
    steps: list[int] = []
    assert blobs.put(DESCRIPTOR, _source, progress=steps.append)
    assert (sum(steps), len(steps)) == (len(DATA), PARTS)
    assert _count(cloud, "UploadPart", settings) == PARTS
    assert blobs.size(DESCRIPTOR.digest) == len(DATA)
    with blobs.open(DESCRIPTOR.digest) as stream:
        assert Content.of(b"".join(iter(lambda: stream.read(MIB), b""))) == CONTENT
    assert _uploads(clients, settings) == []


def test_an_upload_whose_connection_was_lost_goes_on_with_what_is_missing(
    cloud: AwsMock, blobs: S3BlobStore, clients: Clients, settings: AwsSettings
) -> None:
    cloud.rules.add(Rule("s3.UploadPart", skip=2, cut_request_at=MIB))
    with pytest.raises(UnavailableError, match="repeat the call"):
        blobs.put(DESCRIPTOR, _source)
    assert blobs.size(DESCRIPTOR.digest) is None
    assert len(_uploads(clients, settings)) == 1
    there = _count(cloud, "UploadPart", settings)
    assert 2 <= there < PARTS

    steps: list[int] = []
    assert blobs.put(DESCRIPTOR, _source, progress=steps.append)
    assert sum(steps) == len(DATA)
    assert _count(cloud, "UploadPart", settings) == PARTS
    assert _count(cloud, "CreateMultipartUpload", settings) == 1
    with blobs.open(DESCRIPTOR.digest) as stream:
        assert digest_of(stream.read(len(DATA))) == DESCRIPTOR.digest


def test_an_operator_that_is_killed_leaves_nothing_visible_and_can_be_followed(
    cloud: AwsMock, blobs: S3BlobStore, settings: AwsSettings, tmp_path: Path
) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    work = f"""
import os, signal, sys
from edgefleet.protocol.bundle import Descriptor
from edgefleet_aws.blobs import S3BlobStore
from edgefleet_aws.clients import Clients
from edgefleet_aws.settings import AwsSettings
settings = AwsSettings.model_validate_json(sys.argv[1])
told = []
def die(count):
    told.append(count)
    if len(told) == {PARTS}:
        os.kill(os.getpid(), signal.SIGKILL)
descriptor = Descriptor(media_type="", digest={DESCRIPTOR.digest!r}, size={len(DATA)})
S3BlobStore(Clients(settings), settings).put(descriptor, lambda: open("blob", "rb"), progress=die)
"""
    command = [sys.executable, "-c", work, settings.model_dump_json()]
    done = subprocess.run(command, cwd=tmp_path, check=False)
    assert done.returncode == -signal.SIGKILL
    assert blobs.size(DESCRIPTOR.digest) is None
    assert blobs.put(DESCRIPTOR, _source)
    assert _count(cloud, "CreateMultipartUpload", settings) == 1
    assert _count(cloud, "UploadPart", settings) >= PARTS


def test_a_part_that_holds_other_bytes_is_sent_again(
    blobs: S3BlobStore, clients: Clients, settings: AwsSettings
) -> None:
    place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{blob_path(DESCRIPTOR.digest)}"}
    upload = clients.s3.create_multipart_upload(**place, ChecksumAlgorithm="SHA256")["UploadId"]
    clients.s3.upload_part(
        **place,
        UploadId=upload,
        PartNumber=1,
        Body=noise(5 * MIB, 8),
        ChecksumAlgorithm="SHA256",
    )
    blobs.put(DESCRIPTOR, _source)
    with blobs.open(DESCRIPTOR.digest) as stream:
        assert Content.of(b"".join(iter(lambda: stream.read(MIB), b""))) == CONTENT


def test_a_store_that_lists_no_checksums_goes_on_by_the_parts_tags(
    cloud: AwsMock, blobs: S3BlobStore, clients: Clients, settings: AwsSettings
) -> None:
    place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{blob_path(DESCRIPTOR.digest)}"}
    upload = clients.s3.create_multipart_upload(**place)["UploadId"]
    for number, data in ((1, DATA[: 5 * MIB]), (2, noise(5 * MIB, 8))):
        clients.s3.upload_part(**place, UploadId=upload, PartNumber=number, Body=data)
    blobs.put(DESCRIPTOR, _source)
    assert _count(cloud, "UploadPart", settings) == 2 + PARTS - 1
    with blobs.open(DESCRIPTOR.digest) as stream:
        assert Content.of(b"".join(iter(lambda: stream.read(MIB), b""))) == CONTENT


def test_an_upload_that_somebody_ended_is_begun_anew(
    blobs: S3BlobStore, clients: Clients, settings: AwsSettings
) -> None:
    place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{blob_path(DESCRIPTOR.digest)}"}
    opened = itertools.count()

    def ending() -> BinaryIO:
        if next(opened) == 0:  # when the store has begun its upload
            (upload,) = _uploads(clients, settings)
            clients.s3.abort_multipart_upload(**place, UploadId=upload)
        return _source()

    steps: list[int] = []
    assert blobs.put(DESCRIPTOR, ending, progress=steps.append)
    assert next(opened) == 2
    assert sum(steps) == len(DATA)
    assert blobs.size(DESCRIPTOR.digest) == len(DATA)


def test_a_blob_that_another_operator_stored_meanwhile_is_left_as_it_is(
    blobs: S3BlobStore, clients: Clients, settings: AwsSettings
) -> None:
    place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{blob_path(DESCRIPTOR.digest)}"}

    def overtaken() -> BinaryIO:
        clients.s3.put_object(**place, Body=DATA)
        return _source()

    blobs.put(DESCRIPTOR, overtaken)
    assert "-" not in clients.s3.head_object(**place)["ETag"]  # of parts it would have one
    assert _uploads(clients, settings) == []


@pytest.mark.parametrize("data", [DATA, b"small"], ids=["parts", "whole"])
def test_what_somebody_else_wrote_in_a_blobs_place_is_told(
    data: bytes, blobs: S3BlobStore, clients: Clients, settings: AwsSettings
) -> None:
    descriptor = Descriptor(media_type="", digest=digest_of(data), size=len(data))
    key = f"{settings.prefix}/{blob_path(descriptor.digest)}"
    clients.s3.put_object(Bucket=settings.bucket, Key=key, Body=b"half")
    with pytest.raises(IntegrityError, match=f"delete s3://{settings.bucket}/{key}"):
        blobs.put(descriptor, lambda: io.BytesIO(data))


def test_wrong_content_ends_the_upload(
    blobs: S3BlobStore, clients: Clients, settings: AwsSettings
) -> None:
    with pytest.raises(IntegrityError):
        blobs.put(DESCRIPTOR, lambda: io.BytesIO(DATA[:-1] + b"?"))
    assert blobs.size(DESCRIPTOR.digest) is None
    assert _uploads(clients, settings) == []


def test_reading_goes_on_where_the_connection_was_lost(
    cloud: AwsMock, blobs: S3BlobStore, settings: AwsSettings
) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("s3.GetObject", cut_answer_at=MIB))
    cloud.rules.add(Rule("s3.GetObject", cut_answer_at=3 * MIB))
    with blobs.open(DESCRIPTOR.digest, offset=10) as stream:
        assert Content.of(b"".join(iter(lambda: stream.read(MIB), b""))) == Content.of(DATA[10:])


def test_a_connection_that_is_lost_again_and_again_is_told(
    cloud: AwsMock, blobs: S3BlobStore
) -> None:
    blobs.put(DESCRIPTOR, _source)
    stream = blobs.open(DESCRIPTOR.digest)
    cloud.rules.add(Rule("s3.GetObject", times=None, cut_request_at=0))
    stream._drop()  # type: ignore[attr-defined]  # what was on its way is lost
    with stream, pytest.raises(UnavailableError, match="times in a row"):
        stream.read(MIB)


def test_the_source_is_read_no_further_ahead_than_memory_allows(
    cloud: AwsMock, blobs: S3BlobStore, settings: AwsSettings
) -> None:
    part, parts = 5 * MIB, 3 * SENDERS
    data = bytes(part) * parts
    ahead: list[int] = []

    class Watched(io.BytesIO):
        def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
            ahead.append(self.tell() - part * _count(cloud, "UploadPart", settings))
            return super().readinto(buffer)

    descriptor = Descriptor(media_type="", digest=digest_of(data), size=len(data))
    blobs.put(descriptor, lambda: Watched(data))
    assert max(ahead) <= (SENDERS + 2) * part
