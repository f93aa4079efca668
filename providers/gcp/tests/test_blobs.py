"""Blobs by resumable uploads: interrupted, resumed, raced, refused."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit.samples import Content, noise
from edgefleet_gcp.blobs import GcsBlobStore
from edgefleet_gcp.clients import Clients
from edgefleet_gcp.cloud.calls import throttled
from edgefleet_gcp.mock import GcpMock
from edgefleet_gcp.settings import MIB, GcpSettings

CHUNKS = 4
DATA = noise((CHUNKS - 1) * MIB + 1234, 7)  # three whole chunks and a rest
DESCRIPTOR = Descriptor(media_type="", digest=digest_of(DATA), size=len(DATA))
BUSY = Refused(503, "backendError", "Try again.", headers={"Retry-After": "0"})


@pytest.fixture
def settings(make_settings: Callable[..., GcpSettings]) -> GcpSettings:
    return make_settings(chunk_mib=1, max_attempts=1)


@pytest.fixture
def blobs(clients: Clients, settings: GcpSettings) -> GcsBlobStore:
    return GcsBlobStore(clients, settings)


@pytest.fixture
def patient(make_clients: Callable[[GcpSettings], Clients], settings: GcpSettings) -> GcsBlobStore:
    """A store that repeats calls, of the same fleet."""
    again = settings.model_copy(update={"max_attempts": 4})
    return GcsBlobStore(make_clients(again), again)


@pytest.fixture
def seen(cloud: GcpMock) -> Callable[..., int]:
    """How many calls of an operation there were in this test."""
    before = len(list(cloud.seen()))

    def count(operation: str, status: str | None = None) -> int:
        lines = [line.split(" ") for line in list(cloud.seen())[before:]]
        return sum(
            line[1] == f"storage.{operation}" and status in {None, line[3]} for line in lines
        )

    return count


def _source() -> BinaryIO:
    return io.BytesIO(DATA)


def _read(blobs: GcsBlobStore, offset: int = 0) -> Content:
    with blobs.open(DESCRIPTOR.digest, offset=offset) as stream:
        return Content.of(b"".join(iter(lambda: stream.read(MIB), b"")))


def _remembered(settings: GcpSettings) -> list[Path]:
    return list(settings.cache.glob("uploads/*/*/*.json"))


def test_a_large_blob_goes_in_chunks_and_reads_back(
    blobs: GcsBlobStore, settings: GcpSettings, seen: Callable[..., int]
) -> None:
    steps: list[int] = []
    assert blobs.put(DESCRIPTOR, _source, progress=steps.append)
    assert (sum(steps), len(steps)) == (len(DATA), CHUNKS)
    assert (seen("UploadChunk", "308"), seen("UploadChunk", "200")) == (CHUNKS - 1, 1)
    assert _read(blobs) == Content.of(DATA)
    assert _remembered(settings) == []


def test_an_upload_whose_connection_was_lost_goes_on_with_what_is_missing(
    cloud: GcpMock, blobs: GcsBlobStore, settings: GcpSettings, seen: Callable[..., int]
) -> None:
    cloud.rules.add(Rule("storage.UploadChunk", skip=2, cut_request_at=MIB // 2))
    with pytest.raises(UnavailableError, match="repeat the call"):
        blobs.put(DESCRIPTOR, _source)
    assert blobs.size(DESCRIPTOR.digest) is None
    assert seen("UploadChunk", "308") == 2
    steps: list[int] = []
    assert blobs.put(DESCRIPTOR, _source, progress=steps.append)
    assert sum(steps) == len(DATA)
    assert seen("BeginUpload") == 1
    assert seen("UploadChunk", "308") == 2 + 1 + 1  # a question of what is there, and one chunk
    assert _read(blobs) == Content.of(DATA)


def test_an_operator_that_is_killed_leaves_nothing_visible_and_can_be_followed(
    blobs: GcsBlobStore, settings: GcpSettings, tmp_path: Path, seen: Callable[..., int]
) -> None:
    (tmp_path / "blob").write_bytes(DATA)
    work = f"""
import os, signal, sys
from edgefleet.protocol.bundle import Descriptor
from edgefleet_gcp.blobs import GcsBlobStore
from edgefleet_gcp.clients import Clients
from edgefleet_gcp.settings import GcpSettings
settings = GcpSettings.model_validate_json(sys.argv[1])
told = []
def die(count):
    told.append(count)
    if len(told) == {CHUNKS - 1}:
        os.kill(os.getpid(), signal.SIGKILL)
descriptor = Descriptor(media_type="", digest={DESCRIPTOR.digest!r}, size={len(DATA)})
store = GcsBlobStore(Clients(settings), settings)
store.put(descriptor, lambda: open({str(tmp_path / "blob")!r}, "rb"), progress=die)
"""
    done = subprocess.run(
        [sys.executable, "-c", work, settings.model_dump_json()], timeout=240, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert blobs.size(DESCRIPTOR.digest) is None
    [kept] = _remembered(settings)
    assert kept.stat().st_mode & 0o077 == 0
    assert blobs.put(DESCRIPTOR, _source)
    assert (seen("BeginUpload"), seen("UploadChunk", "200")) == (1, 1)
    assert _read(blobs) == Content.of(DATA)
    assert _remembered(settings) == []


def test_an_upload_that_is_over_is_begun_anew(
    cloud: GcpMock, blobs: GcsBlobStore, seen: Callable[..., int]
) -> None:
    cloud.rules.add(Rule("storage.UploadChunk", skip=1, cut_request_at=1))
    with pytest.raises(UnavailableError):
        blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("storage.UploadChunk", fault=Refused(410, "gone", "It is over.")))
    steps: list[int] = []
    blobs.put(DESCRIPTOR, _source, progress=steps.append)
    assert sum(steps) == len(DATA)
    assert seen("BeginUpload") == 2
    assert _read(blobs) == Content.of(DATA)


def test_what_arrived_of_other_bytes_makes_no_blob(
    cloud: GcpMock, blobs: GcsBlobStore, seen: Callable[..., int]
) -> None:
    cloud.rules.add(Rule("storage.UploadChunk", skip=2, cut_request_at=1))
    with pytest.raises(UnavailableError):
        blobs.put(DESCRIPTOR, lambda: io.BytesIO(noise(len(DATA), 8)))
    assert blobs.put(DESCRIPTOR, _source)
    assert seen("UploadChunk", "400") == 1  # the checksum of the whole
    assert _read(blobs) == Content.of(DATA)


def test_wrong_content_is_never_shown_and_its_upload_is_given_up(
    blobs: GcsBlobStore, settings: GcpSettings, seen: Callable[..., int]
) -> None:
    with pytest.raises(IntegrityError):
        blobs.put(DESCRIPTOR, lambda: io.BytesIO(DATA[:-1] + b"?"))
    assert blobs.size(DESCRIPTOR.digest) is None
    assert (seen("UploadChunk", "200"), seen("EndUpload")) == (0, 1)
    assert _remembered(settings) == []


def test_a_blob_that_another_operator_stored_meanwhile_is_left_as_it_is(
    blobs: GcsBlobStore, clients: Clients, settings: GcpSettings
) -> None:
    blob = clients.bucket.blob(f"{settings.prefix}/{blob_path(DESCRIPTOR.digest)}")

    def overtaken() -> BinaryIO:
        if not blob.exists():
            blob.upload_from_string(DATA)
        return _source()

    blobs.put(DESCRIPTOR, overtaken)
    blob.reload()
    first = blob.generation
    blobs.put(DESCRIPTOR, _source)
    blob.reload()
    assert blob.generation == first


@pytest.mark.parametrize("data", [DATA, b"small"], ids=["chunks", "whole"])
def test_what_somebody_else_wrote_in_a_blobs_place_is_told(
    data: bytes, blobs: GcsBlobStore, clients: Clients, settings: GcpSettings
) -> None:
    descriptor = Descriptor(media_type="", digest=digest_of(data), size=len(data))
    blob = clients.bucket.blob(f"{settings.prefix}/{blob_path(descriptor.digest)}")
    blob.upload_from_string(b"half")
    with pytest.raises(IntegrityError, match=f"delete {settings.root}/blobs/sha256/"):
        blobs.put(descriptor, lambda: io.BytesIO(data))


def test_a_last_chunk_whose_answer_was_lost_is_found_done(
    cloud: GcpMock, patient: GcsBlobStore
) -> None:
    cloud.rules.add(Rule("storage.UploadChunk", skip=CHUNKS - 1, cut_answer_at=0))
    patient.put(DESCRIPTOR, _source)
    assert _read(patient) == Content.of(DATA)


def test_a_small_blob_whose_answer_was_lost_is_found_done(
    cloud: GcpMock, patient: GcsBlobStore
) -> None:
    cloud.rules.add(Rule("storage.InsertObject", cut_answer_at=0))
    descriptor = patient.put_bytes(b"small", "text/plain")
    assert patient.size(descriptor.digest) == 5


def test_reading_goes_on_where_the_connection_was_lost(cloud: GcpMock, blobs: GcsBlobStore) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("storage.ReadObject", cut_answer_at=MIB))
    cloud.rules.add(Rule("storage.ReadObject", cut_answer_at=MIB // 2))
    assert _read(blobs, 10) == Content.of(DATA[10:])


def test_a_token_that_ends_in_the_middle_of_a_download_is_renewed(
    cloud: GcpMock, blobs: GcsBlobStore, seen: Callable[..., int]
) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("storage.ReadObject", cut_answer_at=MIB))
    with blobs.open(DESCRIPTOR.digest) as stream:
        first = stream.read(1)
        cloud.stage.identities.end_tokens()
        rest = b"".join(iter(lambda: stream.read(MIB), b""))
    assert Content.of(first + rest) == Content.of(DATA)
    assert seen("ReadObject", "401") == 1


def test_a_blob_that_is_replaced_while_it_is_read_is_told(
    cloud: GcpMock, blobs: GcsBlobStore, clients: Clients, settings: GcpSettings
) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("storage.ReadObject", cut_answer_at=MIB))
    with blobs.open(DESCRIPTOR.digest) as stream:
        stream.read(1)
        name = f"{settings.prefix}/{blob_path(DESCRIPTOR.digest)}"
        clients.bucket.blob(name).upload_from_string(noise(len(DATA), 1))
        with pytest.raises(IntegrityError, match="replaced"):
            list(iter(lambda: stream.read(MIB), b""))


def test_a_connection_that_is_lost_again_and_again_is_told(
    cloud: GcpMock, blobs: GcsBlobStore
) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.rules.add(Rule("storage.ReadObject", times=None, cut_answer_at=0))
    with (
        pytest.raises(UnavailableError, match="repeat the call"),
        blobs.open(DESCRIPTOR.digest) as stream,
    ):
        stream.read(MIB)


@pytest.mark.parametrize("fault", [BUSY, throttled(0), throttled(1)], ids=["503", "429", "1 s"])
def test_what_storage_answers_later_is_sent_and_read_later(
    cloud: GcpMock, patient: GcsBlobStore, seen: Callable[..., int], fault: Refused
) -> None:
    for operation in ("BeginUpload", "UploadChunk", "ReadObject"):
        cloud.rules.add(Rule(f"storage.{operation}", fault=fault))
    patient.put(DESCRIPTOR, _source)
    assert _read(patient) == Content.of(DATA)
    for operation in ("BeginUpload", "UploadChunk", "ReadObject"):
        assert seen(operation, str(fault.status)) == 1


def test_a_wait_that_is_too_long_is_told_at_once(
    cloud: GcpMock, patient: GcsBlobStore, seen: Callable[..., int]
) -> None:
    cloud.rules.add(Rule("storage.GetObject", times=None, fault=throttled(3600)))
    with pytest.raises(ThrottledError, match="wait") as raised:
        patient.size(DESCRIPTOR.digest)
    assert raised.value.retry_after_s == 3600
    assert seen("GetObject", "429") == 1


def test_who_may_only_read_is_told_the_permission_that_is_missing(
    cloud: GcpMock,
    blobs: GcsBlobStore,
    make_clients: Callable[[GcpSettings], Clients],
    settings: GcpSettings,
    become: Callable[[str], None],
) -> None:
    blobs.put(DESCRIPTOR, _source)
    cloud.add_account("ada", {"bucket": ["storage.objects.get"]})
    become("ada")
    reader = GcsBlobStore(make_clients(settings), settings)
    assert _read(reader) == Content.of(DATA)
    with pytest.raises(AccessDeniedError, match=r"role with storage\.objects\.create") as raised:
        reader.put_bytes(b"other", "text/plain")
    assert "gcloud auth list" in str(raised.value)


def test_a_bucket_that_is_not_there_is_told_and_is_no_missing_blob(
    make_settings: Callable[..., GcpSettings], make_clients: Callable[[GcpSettings], Clients]
) -> None:
    settings = make_settings(bucket="nobody-made-it")
    with pytest.raises(NotFoundError, match="`bucket` of the profile"):
        GcsBlobStore(make_clients(settings), settings).size(DESCRIPTOR.digest)
